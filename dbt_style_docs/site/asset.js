// The page of one asset, section by section.

function assetPage(a) {
  const sections = [
    ["lineage", "Lineage", lineageSection(a)], ["columns", "Columns", columnSection(a)], ["checks", "Checks", checkSection(a)],
    ["scores", "Scores", scoreSection(a)], ["versions", "Partitions", partitionSection(a)], ["built", "What was built", builtSection(a)],
    ["declaration", "Declaration", declarationSection(a)], ["code", "Code", codeSection(a)],
  ].filter(([, , body]) => body);
  return el("article", {},
    el("header", { class: "head" },
      el("p", { class: "where" }, el("a", { href: `#/group/${encodeURIComponent(a.group)}` }, groupTitle(a.group)), a.run ? ` · run ${a.run}` : a.character ? ` · ${a.character}` : ""),
      el("h1", {}, a.name),
      el("p", { class: "chips" }, stateChip(a), checkChip(a), a.kinds.map(k => el("span", { class: "chip" }, k)))),
    el("div", { class: "prose lead" }, prose(T(a.description))),
    a.why.length ? el("div", { class: "note" }, el("b", {}, `${stateWord(a)}: `), a.why.length === 1 ? a.why[0] : el("ul", {}, a.why.map(w => el("li", {}, w)))) : null,
    facts(a),
    el("nav", { class: "jump", "aria-label": "sections" }, sections.map(([id, title]) =>
      el("button", { type: "button", onclick: () => document.getElementById(id).scrollIntoView({ block: "start" }) }, title))),
    sections.map(([id, title, body]) => el("section", { id, "aria-label": title }, el("h2", {}, title), body)));
}

function facts(a) {
  const b = a.built, rows = Object.values(a.rows).reduce((x, y) => x + y, 0);
  const pairs = [
    ["data version", b.content_hash ? el("code", { title: b.content_hash }, short(b.content_hash)) : "–"],
    ["built", b.built_at ? when(b.built_at) : "–"],
    ["took", typeof b.seconds === "number" ? duration(b.seconds) : "–"],
    ["rows", Object.keys(a.rows).length ? count(rows) : null],
    ["size", b.bytes !== undefined ? bytes(b.bytes) : "–"],
    ["cost", typeof b.cost_usd === "number" ? `$${b.cost_usd.toFixed(2)}` : null],
    ["owners", a.owners.join(", ")],
    ["code version", el("code", {}, a.code_version || "–")],
    ["pool", a.pool], ["rebuilt", a.automation || "when asked"],
  ];
  return el("dl", { class: "facts" }, pairs.filter(([, v]) => v !== null).map(([k, v]) => el("div", {}, el("dt", {}, k), el("dd", {}, v))));
}

function lineageSection(a) {
  const [up, down] = hops;
  const link = name => el("a", { href: page(name), class: "plain" }, dot(assets.get(name)), name);
  const names = around(a.name, up, down);
  const list = (title, all) => el("div", {}, el("h3", {}, `${title} (${all.length})`), all.length ? el("ul", { class: "links" }, all.map(n => el("li", {}, link(n)))) : el("p", { class: "soft" }, "nothing"));
  return [
    el("div", { class: "bar" }, hopControls(a.name, up, down, (u, d) => { hops = [u, d]; show(); document.getElementById("lineage").scrollIntoView(); }),
      el("a", { class: "button", href: `#/graph/${encodeURIComponent(a.name)}` }, "open in the graph")),
    drawing(names, a.name, page, `lineage of ${a.name}`),
    el("div", { class: "two" }, list("Depends on", parentsOf(a.name)), list("Referenced by", childrenOf(a.name))),
  ];
}

function columnSection(a) {
  const tables = a.kind ? data.kinds[a.kind].tables : [];
  if (!tables.length) return null;
  return tables.map(t => [
    el("h3", {}, el("code", {}, t.name), el("span", { class: "soft" }, t.name in a.rows ? ` · ${count(a.rows[t.name])} rows` : t.optional ? " · there under some declarations only" : "")),
    el("p", { class: "soft" }, inline(T(t.description))),
    table(["column", "type", "description"], t.columns.map(([name, type, text]) =>
      [el("a", { href: `#/column/${encodeURIComponent(name)}` }, el("code", {}, name)), el("code", { class: "soft" }, type), inline(T(text))]), `columns of ${t.name}`),
  ]);
}

function checkSection(a) {
  if (!a.checks.length) return null;
  const rows = a.checks.map(([name, blocking, text, result]) => {
    const [outcome, at, latest, by, said, observed, bound] = result || ["never ran", null, null, null, "", "", ""];
    const figures = [observed && `observed ${observed}`, bound && bound !== "None" && bound !== "{}" && `bound ${bound}`, said].filter(Boolean).join("; ");
    return [
      [el("code", {}, name), blocking ? el("span", { class: "chip" }, "blocks") : null],
      [el("span", { class: `chip ${CHECK_CLASS[outcome] || ""}` }, outcome), latest === false ? el("span", { class: "soft" }, " on an earlier version") : null],
      [el("div", {}, inline(T(text))), figures ? el("div", { class: "soft" }, figures) : null],
      el("span", { class: "soft" }, by === "verdict" ? "the verdict beside it" : when(at)),
    ];
  });
  return table(["check", "last result", "what it demands, what was found", "when"], rows, "checks");
}

function scoreSection(a) {
  const scores = a.built.scores || [];
  if (!scores.length) return null;
  const figure = v => typeof v === "number" ? v.toFixed(2) : "–";
  return table(["served as", "overall", "95 % interval", "judge", "critical failures", "unscored", "score"], scores.map(s => [
    s.mode, figure(s.overall), `${figure(s.overall_low)} – ${figure(s.overall_high)}`, s.judge, String(s.critical_failures), String(s.parse_failures), el("code", {}, short(s.score_id))]), "scores, as measured here");
}

function partitionSection(a) {
  if (!a.partitions.length) return null;
  return table(["partition", "data version", "when"], a.partitions.map(p => {
    const v = (a.built.partitions || {})[p];
    return [p, v ? el("code", { title: v.data_version }, short(v.data_version)) : "not built", v ? when(v.at) : "–"];
  }), "partitions");
}

function builtSection(a) {
  const b = a.built;
  if (!b.content_hash) return null;
  const files = Object.entries(b.files || {}), facts = Object.entries(a.facts).filter(([k]) => k !== "built_at" && k !== "build_seconds");
  return [
    el("dl", { class: "wide" }, [["content hash", b.content_hash], ["input hash", b.input_hash], ...Object.entries(b.inputs || {}).map(([k, v]) => [`from ${k}`, v])]
      .map(([k, v]) => el("div", {}, el("dt", {}, k), el("dd", {}, el("code", {}, v))))),
    b.last_materialization ? el("p", { class: "soft" }, `Last materialized ${when(b.last_materialization.at)} in run ${b.last_materialization.run_id.slice(0, 8)}`,
      b.last_materialization.data_version === b.content_hash ? "." : `, as ${short(b.last_materialization.data_version)}: not what is shown here.`) : el("p", { class: "soft" }, "Dagster remembers no materialization of it."),
    files.length ? el("details", {}, el("summary", {}, `${files.length} files, ${bytes(b.bytes)}`), table(["file", "size"], files.map(([k, v]) => [el("code", {}, k), bytes(v)]), "files")) : null,
    facts.length ? el("details", {}, el("summary", {}, `${facts.length} facts`), table(["fact", "value"], facts.map(([k, v]) => [k.replaceAll("_", " "), String(v)]), "facts")) : null,
  ];
}

function declarationSection(a) {
  const written = a.files.map(path => [path, path in data.files ? T(data.files[path]) : null]);
  const whole = fields => fields.map(([, text]) => T(text)).join("\n");
  const block = (title, text, open) => el("details", { open }, el("summary", {}, title), el("pre", { tabindex: 0 }, el("code", {}, text)));
  return [
    written.map(([path, text], i) => text === null ? el("p", {}, "Declared in ", el("code", {}, path)) : block(["As written in ", el("code", {}, path)], text, i === 0)),
    a.effective.length ? block("In effect under this profile", whole(a.effective), false) : null,
    a.declaration.length ? block("Compiled: what its input hash covers", whole(a.declaration), false) : null,
    !a.files.length && !a.declaration.length ? el("p", { class: "soft" }, "Nothing but its inputs.") : null,
  ];
}

function codeSection(a) {
  if (!a.built_by) return null;
  const [module, name, line, source] = data.functions[a.built_by];
  const href = (m, at) => `code/${m}.html${at ? `#L${at}` : ""}`;
  return [
    el("p", {}, "Built by ", el("a", { href: href(module, line) }, el("code", {}, `${module}.${name}`)), `, line ${line}. Its version `, el("code", {}, a.code_version || "–"), " covers this function and these modules:"),
    el("details", { open: true }, el("summary", {}, "The function"), el("pre", { tabindex: 0 }, el("code", {}, T(source)))),
    a.modules.length ? table(["module", "about"], a.modules.map(i => [el("a", { href: href(data.modules[i][0]) }, el("code", {}, data.modules[i][0].replace(/^foundry_pipeline\./, ""))), inline(T(data.modules[i][1]))]), "modules") : null,
  ];
}
