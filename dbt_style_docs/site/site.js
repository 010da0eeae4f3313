// The page: what the address after # asks for, the list of assets beside it, and the search.

const data = JSON.parse(document.getElementById("data").textContent);
const assets = new Map(data.assets.map(a => [a.name, a]));
const readers = new Map();
for (const a of data.assets) for (const p of a.parents) readers.set(p, [...(readers.get(p) || []), a.name]);
const main = document.querySelector("main"), box = document.getElementById("search"), found = document.getElementById("found");
let hops = ["1", "1"];

const T = number => data.texts[number];
const page = name => `#/asset/${encodeURIComponent(name)}`;
const groupNumber = name => Math.max(0, data.groups.findIndex(g => g.name === name)) % 8;
const groupTitle = name => (data.groups.find(g => g.name === name) || { title: name }).title;

const STATES = { built: "good", stale: "warn", damaged: "bad", collapsed: "bad", "not built": "" };
const CHECK_CLASS = { passed: "good", warned: "warn", failed: "bad", error: "bad" };
const stateWord = a => a.built.state;
const stateClass = a => STATES[a.built.state] || (worstCheck(a) === "bad" ? "bad" : "");
const stateChip = a => el("span", { class: `chip ${STATES[a.built.state]}` }, a.built.state);
const dot = a => el("span", { class: `dot ${stateClass(a)}`, title: a.built.state });

function tally(a) {
  const out = { passed: 0, failed: 0, warned: 0, rest: 0 };
  for (const [, , , result] of a.checks) {
    const outcome = result ? result[0] : "";
    if (outcome === "passed") out.passed++;
    else if (outcome === "failed" || outcome === "error") out.failed++;
    else if (outcome === "warned") out.warned++;
    else out.rest++;
  }
  return out;
}
const worstCheck = a => { const t = tally(a); return t.failed ? "bad" : t.warned ? "warn" : t.rest ? "" : "good"; };
function checkChip(a) {
  if (!a.checks.length) return null;
  const t = tally(a);
  const text = t.failed ? `${t.failed} of ${a.checks.length} checks failed` : t.warned ? `${t.warned} of ${a.checks.length} checks warn`
    : t.rest ? `${t.rest} of ${a.checks.length} checks never ran` : `${a.checks.length} checks passed`;
  return el("span", { class: `chip ${worstCheck(a)}` }, text);
}

// -- pages --------------------------------------------------------------------------------------------------------

function assetTable(names, label) {
  return table(["asset", "state", "checks", "rows", "size", "built"], names.map(n => {
    const a = assets.get(n), rows = Object.values(a.rows), t = tally(a);
    return [el("a", { href: page(n) }, n), stateChip(a),
      a.checks.length ? el("span", { class: `chip ${worstCheck(a)}` }, `${t.passed}/${a.checks.length}`) : "–",
      rows.length ? count(rows.reduce((x, y) => x + y, 0)) : "–", a.built.bytes === undefined ? "–" : bytes(a.built.bytes), when(a.built.built_at)];
  }), label);
}

function overview() {
  const states = Object.keys(STATES).map(s => [s, data.assets.filter(a => a.built.state === s).length]).filter(([, n]) => n);
  const failing = data.assets.filter(a => worstCheck(a) === "bad");
  const scored = data.assets.filter(a => (a.built.scores || []).length && a.built.state === "built");
  return el("article", {},
    el("header", { class: "head" }, el("h1", { class: "title" }, "What is declared, and what is built of it"),
      el("p", { class: "chips" }, el("span", { class: "chip" }, `profile ${data.profile}`), el("span", { class: "chip" }, `${count(data.assets.length)} assets`),
        states.map(([s, n]) => el("span", { class: `chip ${STATES[s]}` }, `${count(n)} ${s}`)),
        failing.length ? el("span", { class: "chip bad" }, `${failing.length} with a failed check`) : null)),
    el("div", { class: "prose lead" }, el("p", {}, "Search with ", el("kbd", {}, "/"), ", pick an asset at the side, or walk the ", el("a", { href: "#/graph" }, "lineage graph"), ".")),
    failing.length ? el("section", {}, el("h2", {}, "Failed checks"), assetTable(failing.map(a => a.name), "assets with a failed check")) : null,
    scored.length ? el("section", {}, el("h2", {}, "Scores"), el("p", { class: "soft" }, "As measured here; each row links to where it comes from."),
      table(["run", "served as", "overall", "95 % interval", "judge"], scored.flatMap(a => a.built.scores.map(s => [
        el("a", { href: page(a.name) }, a.run || a.name), s.mode, typeof s.overall === "number" ? s.overall.toFixed(2) : "–",
        typeof s.overall_low === "number" ? `${s.overall_low.toFixed(2)} – ${s.overall_high.toFixed(2)}` : "–", s.judge])), "scores")) : null,
    data.groups.map(g => {
      const mine = data.assets.filter(a => a.group === g.name);
      if (!mine.length) return null;
      const built = mine.filter(a => a.built.state === "built").length;
      return el("section", { class: "group" }, el("h2", {}, el("span", { class: "band", style: `background:var(--g${groupNumber(g.name)})` }), el("a", { href: `#/group/${encodeURIComponent(g.name)}` }, g.title),
        el("span", { class: "soft" }, ` ${built} of ${mine.length} built`)), el("p", { class: "soft" }, inline(T(g.description))));
    }));
}

function groupPage(name) {
  const g = data.groups.find(x => x.name === name), mine = data.assets.filter(a => a.group === name);
  if (!mine.length) return missing("group", name);
  const kinds = [...new Set(mine.map(a => a.kind).filter(Boolean))];
  return el("article", {}, el("header", { class: "head" }, el("p", { class: "where" }, "group"), el("h1", { class: "title" }, groupTitle(name))),
    el("div", { class: "prose lead" }, g ? prose(T(g.description)) : null, g && g.owners.length ? el("p", { class: "soft" }, `Owned by ${g.owners.join(", ")} where no character is.`) : null),
    kinds.map(k => el("section", {}, el("h2", {}, k.replaceAll("_", " ")), el("div", { class: "prose" }, prose(T(data.kinds[k].description))),
      assetTable(mine.filter(a => a.kind === k).map(a => a.name), `assets of the kind ${k}`))),
    mine.some(a => !a.kind) ? el("section", {}, el("h2", {}, "others"), assetTable(mine.filter(a => !a.kind).map(a => a.name), "others")) : null);
}

// Every table that has a column of this name.
function columnPage(name) {
  const places = Object.entries(data.kinds).flatMap(([kind, k]) => k.tables.flatMap(t => t.columns.filter(c => c[0] === name).map(c => ({ kind, table: t.name, type: c[1], text: c[2] }))));
  if (!places.length) return missing("column", name);
  return el("article", {}, el("header", { class: "head" }, el("p", { class: "where" }, "column"), el("h1", {}, name)),
    table(["table", "type", "description", "in"], places.map(p => {
      const mine = data.assets.filter(a => a.kind === p.kind).map(a => el("li", {}, el("a", { href: page(a.name) }, a.name)));
      return [el("code", {}, `${p.kind}.${p.table}`), el("code", { class: "soft" }, p.type), inline(T(p.text)),
        mine.length > 4 ? el("details", {}, el("summary", {}, `${mine.length} assets`), el("ul", { class: "links" }, mine)) : el("ul", { class: "links" }, mine)];
    }), `places of the column ${name}`));
}

function checkPage(name) {
  const mine = data.assets.filter(a => a.checks.some(c => c[0] === name));
  if (!mine.length) return missing("check", name);
  return el("article", {}, el("header", { class: "head" }, el("p", { class: "where" }, "check"), el("h1", {}, name)),
    table(["asset", "last result", "what it demands"], mine.map(a => {
      const [, , text, result] = a.checks.find(c => c[0] === name), outcome = result ? result[0] : "never ran";
      return [el("a", { href: page(a.name) }, a.name), el("span", { class: `chip ${CHECK_CLASS[outcome] || ""}` }, outcome), inline(T(text))];
    }), `the check ${name}`));
}

function graphPage(name, query) {
  const part = new URLSearchParams(query);
  if (name !== null && !assets.has(name)) return missing("asset", name);
  const read = (key, otherwise) => HOPS.includes(part.get(key)) ? part.get(key) : otherwise;
  const up = read("up", "all"), down = read("down", "1"), whole = name === null || part.get("whole") === "1";
  const at = (n, u = up, d = down, w = whole) => `#/graph/${encodeURIComponent(n)}?up=${u}&down=${d}${w ? "&whole=1" : ""}`;
  const names = whole ? new Set(assets.keys()) : around(name, up, down);
  const a = name === null ? null : assets.get(name);
  const go = href => { location.hash = href; };
  return el("article", { class: "graphpage" },
    el("div", { class: "bar" },
      el("h1", { class: "title" }, whole ? "The whole lineage" : "Lineage of ", whole ? null : el("code", {}, name)),
      whole || a === null ? null : hopControls(name, up, down, (u, d) => go(at(name, u, d))),
      a === null ? null : el("a", { class: "button", href: whole ? at(name, "all", "1", false) : at(name, up, down, true) }, whole ? `only around ${name}` : "in the whole graph"),
      a === null || !whole ? null : el("a", { class: "button", href: "#/graph" }, "select none")),
    names.size ? drawing(names, name, n => at(n), whole ? "the whole lineage" : `lineage of ${name}`) : el("p", {}, "There are no assets."),
    el("p", { class: "soft legend" }, data.groups.map(g => el("span", {}, el("span", { class: "band", style: `background:var(--g${groupNumber(g.name)})` }), g.title)),
      el("span", {}, "arrow keys walk, Enter selects")),
    a ? panel(a) : null);
}

function panel(a) {
  const far = next => String(reach(a.name, next, Infinity).size - 1);
  return el("aside", { class: "panel", "aria-label": "selected asset" },
    el("div", {}, el("p", { class: "where" }, groupTitle(a.group)), el("h2", {}, el("a", { href: page(a.name) }, a.name)),
      el("p", { class: "chips" }, stateChip(a), checkChip(a)), el("div", { class: "prose" }, prose(T(a.description))),
      el("p", {}, el("a", { class: "button", href: page(a.name) }, "open its page"))),
    el("dl", { class: "facts" }, [["data version", el("code", {}, short(a.built.content_hash))], ["built", when(a.built.built_at)],
      ["upstream", far(parentsOf)], ["downstream", far(childrenOf)]].map(([k, v]) => el("div", {}, el("dt", {}, k), el("dd", {}, v)))));
}

function missing(what, name) {
  const near = nearest(entries(), name);
  return el("article", {}, el("h1", { class: "title" }, `There is no ${what} of that name`), el("p", {}, el("code", {}, name)),
    near.length ? el("p", {}, "Near to it: ", near.map((x, i) => [i ? ", " : "", el("a", { href: x.entry.href }, x.entry.name)])) : null, el("p", {}, el("a", { href: "#/" }, "to the overview")));
}

function show() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  const [what, ...rest] = path.split("/");
  let name = rest.join("/");
  try { name = decodeURIComponent(name); } catch { /* an address that was typed by hand stays as it is */ }
  const made = what === "asset" ? (assets.has(name) ? assetPage(assets.get(name)) : missing("asset", name))
    : what === "graph" ? graphPage(name || null, query || "")
    : what === "group" ? groupPage(name) : what === "column" ? columnPage(name) : what === "check" ? checkPage(name)
    : what === "" ? overview() : missing("page", path);
  main.replaceChildren(made);
  document.title = what === "" ? "Foundry: documentation" : what === "graph" ? `${name || "all"} · lineage · Foundry` : `${name} · Foundry`;
  document.body.classList.remove("menu");
  for (const link of document.querySelectorAll("nav.side a")) {
    const here = what === "asset" && link.getAttribute("data-name") === name;
    if (here) { link.setAttribute("aria-current", "page"); const d = link.closest("details"); if (d) d.open = true; } else link.removeAttribute("aria-current");
  }
}

// -- the list at the side --------------------------------------------------------------------------------------------

let by = "group";
function side() {
  const place = document.querySelector("nav.side .list");
  const link = a => el("li", {}, el("a", { href: page(a.name), "data-name": a.name }, dot(a), a.name));
  const part = (title, mine, band) => mine.length ? el("details", { open: data.assets.length <= 120 && by === "group" || null },
    el("summary", {}, band, title, el("span", { class: "soft" }, ` ${mine.length}`)), el("ul", {}, mine.map(link))) : null;
  if (by === "group") {
    const known = new Set(data.groups.map(g => g.name));
    place.replaceChildren(...[...data.groups, ...[...new Set(data.assets.map(a => a.group))].filter(g => !known.has(g)).map(g => ({ name: g, title: g }))]
      .map(g => part(g.title, data.assets.filter(a => a.group === g.name), el("span", { class: "band", style: `background:var(--g${groupNumber(g.name)})` }))).filter(Boolean));
  } else {
    const runs = [...new Set(data.assets.map(a => a.run).filter(Boolean))].sort();
    place.replaceChildren(...[...runs.map(r => part(r, data.assets.filter(a => a.run === r))), part("of no run", data.assets.filter(a => !a.run))].filter(Boolean));
  }
}

// -- search ------------------------------------------------------------------------------------------------------------

let known = null;
function entries() {
  if (known) return known;
  known = [];
  const add = (type, name, text, href, about) => known.push({ type, name, text, href, about });
  for (const g of data.groups) add("group", g.title, `${g.name} ${T(g.description)}`, `#/group/${encodeURIComponent(g.name)}`, T(g.description));
  for (const a of data.assets) {
    add("asset", a.name, [T(a.description), a.kinds.join(" "), a.owners.join(" "), a.group, a.built.state, a.built.content_hash || ""].join(" "), page(a.name), T(a.own) || T(a.description));
  }
  const columns = new Map(), checks = new Map();
  for (const k of Object.values(data.kinds)) for (const t of k.tables) for (const [name, , text] of t.columns) columns.set(name, new Set([...(columns.get(name) || []), text]));
  for (const a of data.assets) for (const [name, , text] of a.checks) checks.set(name, (checks.get(name) || new Set()).add(text));
  const several = set => [...set].map(T).join(" · ");
  for (const [name, texts] of columns) add("column", name, several(texts), `#/column/${encodeURIComponent(name)}`, several(texts));
  for (const [name, texts] of checks) add("check", name, several(texts), `#/check/${encodeURIComponent(name)}`, T([...texts][0]));
  for (const [name, text] of data.modules) add("module", name.replace(/^foundry_pipeline\./, ""), T(text), `code/${name}.html`, T(text));
  return known;
}

let chosen = -1;
function choose(index) {
  const options = [...found.querySelectorAll("[role=option]")];
  if (!options.length) return;
  chosen = (index + options.length) % options.length;
  options.forEach((o, i) => o.setAttribute("aria-selected", i === chosen));
  options[chosen].scrollIntoView({ block: "nearest" });
  box.setAttribute("aria-activedescendant", options[chosen].id);
}
function closeSearch() {
  found.hidden = true;
  chosen = -1;
  box.setAttribute("aria-expanded", "false");
  box.removeAttribute("aria-activedescendant");
}
function search() {
  const query = box.value;
  if (!query.trim()) { closeSearch(); return; }
  const hits = find(entries(), query).map(h => h.entry);
  const near = hits.length ? [] : nearest(entries(), query).map(h => h.entry);
  const row = (e, i) => el("a", { href: e.href, role: "option", id: `hit${i}`, tabindex: -1, onclick: () => { closeSearch(); } },
    el("span", { class: "type" }, e.type), el("b", {}, e.name), el("span", { class: "soft" }, e.about.slice(0, 160)));
  found.replaceChildren(...(hits.length ? hits.map(row) : [el("p", { class: "soft" }, near.length ? "Nothing holds that. Did you mean:" : "Nothing holds that."), ...near.map(row)]));
  found.hidden = false;
  box.setAttribute("aria-expanded", "true");
  chosen = -1;
  if (hits.length) choose(0);
}
box.addEventListener("input", search);
box.addEventListener("focus", search);
box.addEventListener("keydown", event => {
  if (event.key === "ArrowDown" || event.key === "ArrowUp") { event.preventDefault(); choose(chosen + (event.key === "ArrowDown" ? 1 : -1)); }
  if (event.key === "Escape") { closeSearch(); box.blur(); }
  if (event.key === "Enter") {
    const option = found.querySelector("[aria-selected=true]");
    if (option && !found.hidden) { event.preventDefault(); box.blur(); location.href = option.getAttribute("href"); closeSearch(); }
  }
});
document.addEventListener("keydown", event => {
  if (event.key === "/" && !/^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement.tagName)) { event.preventDefault(); box.focus(); box.select(); }
  if (event.key === "Escape") document.body.classList.remove("menu");
});
document.addEventListener("pointerdown", event => { if (!event.target.closest(".searching")) closeSearch(); });
document.getElementById("menu").addEventListener("click", () => document.body.classList.toggle("menu"));
for (const radio of document.querySelectorAll("nav.side input")) radio.addEventListener("change", () => { by = radio.value; side(); });
window.addEventListener("hashchange", () => { show(); window.scrollTo(0, 0); });
side();
show();
