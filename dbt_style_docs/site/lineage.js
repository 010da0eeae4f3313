// The lineage graph: a part of it around one asset, or the whole, drawn as SVG and walked by mouse, touch or arrow keys.

const TEXT_WIDTH = 6.75; // pixels of a letter at 11.2 px, monospace
const READABLE = 0.78; // the zoom below which names are no longer read with ease
const OVERVIEW = 0.58; // the least zoom that the whole opens at, before anything is selected
const HOPS = ["0", "1", "2", "3", "4", "all"];

// The names within so many steps of one, by steps in the given direction.
function reach(name, next, hops) {
  const found = new Map([[name, 0]]);
  const queue = [name];
  for (let i = 0; i < queue.length; i++) {
    const step = found.get(queue[i]) + 1;
    if (step > hops) continue;
    for (const n of next(queue[i])) if (!found.has(n)) { found.set(n, step); queue.push(n); }
  }
  return found;
}
const parentsOf = name => assets.get(name).parents.filter(p => assets.has(p));
const childrenOf = name => readers.get(name) || [];

function around(name, up, down) {
  const number = hops => hops === "all" ? Infinity : Number(hops);
  return new Set([...reach(name, parentsOf, number(up)).keys(), ...reach(name, childrenOf, number(down)).keys()]);
}

// To the right where that can be read as wide as the window is, as lineage is mostly drawn; a long thin one downwards.
function laidOut(nodes) {
  const right = layered(nodes, false), room = (document.documentElement.clientWidth - (document.documentElement.clientWidth > 860 ? 380 : 40)) / READABLE;
  if (right.width <= room || nodes.length > 60) return right;
  const downwards = layered(nodes, true);
  return downwards.width < right.width && downwards.width <= 1.4 * room ? downwards : right;
}

// href(name): where a click on a node leads. Returns the element; it scrolls to the focus once it is in the page.
function drawing(names, focus, href, label) {
  const nodes = data.assets.filter(a => names.has(a.name)).map(a => ({
    id: a.name, parents: a.parents, width: Math.ceil(a.name.length * TEXT_WIDTH) + 34,
  }));
  const plan = laidOut(nodes), pad = 16;
  const sheet = svg("svg", {
    viewBox: `${-pad} ${-pad} ${plan.width + 2 * pad} ${plan.height + 2 * pad}`, role: "group", "aria-label": label, class: "graph", "data-direction": plan.down ? "down" : "right",
  });
  const lines = plan.edges.map(e => ({ ...e, node: svg("path", { d: e.path, class: "edge" }) }));
  sheet.append(svg("g", {}, lines.map(l => l.node)));
  const boxes = new Map();
  for (const n of nodes) {
    const a = assets.get(n.id), box = plan.boxes.get(n.id);
    const node = svg("a", {
      href: href(n.id), class: `node ${n.id === focus ? "focus" : ""} ${a.built.state === "not built" ? "absent" : ""}`,
      "data-name": n.id, "aria-label": `${n.id}, ${groupTitle(a.group)}, ${stateWord(a)}`, "aria-current": n.id === focus ? "true" : null,
      transform: `translate(${box.x} ${Math.round(box.y * 10) / 10})`,
    },
      svg("title", {}, `${n.id} · ${groupTitle(a.group)} · ${stateWord(a)}`),
      svg("rect", { width: box.width, height: box.height, rx: 6 }),
      svg("rect", { class: "band", width: 5, height: box.height - 12, x: 7, y: 6, rx: 2.5, style: `fill:var(--g${groupNumber(a.group)})` }),
      svg("text", { x: 19, y: box.height / 2 + 4 }, n.id),
      svg("circle", { class: `dot ${stateClass(a)}`, cx: box.width - 9, cy: box.height / 2, r: 3.5 }));
    boxes.set(n.id, node);
    sheet.append(node);
  }
  const light = name => {
    const near = name === null ? null : new Set([...reach(name, parentsOf, Infinity).keys(), ...reach(name, childrenOf, Infinity).keys()]);
    const up = name === null ? null : reach(name, parentsOf, Infinity), down = name === null ? null : reach(name, childrenOf, Infinity);
    for (const [id, node] of boxes) node.classList.toggle("dim", near !== null && !near.has(id));
    for (const l of lines) {
      const on = near !== null && ((up.has(l.from) && up.has(l.to)) || (down.has(l.from) && down.has(l.to)));
      l.node.classList.toggle("on", on);
      l.node.classList.toggle("dim", near !== null && !on);
    }
  };
  const rest = names.size > 12 ? focus : null; // in a small part everything is near
  light(rest);
  for (const [id, node] of boxes) {
    node.addEventListener("mouseenter", () => light(id));
    node.addEventListener("mouseleave", () => light(rest));
    node.addEventListener("focus", () => light(id));
    node.addEventListener("blur", () => light(rest));
  }
  const step = (id, key) => {
    const box = plan.boxes.get(id);
    const across = b => plan.down ? b.x + b.width / 2 : b.y;
    const onwards = n => Number(next(n).length > 0);
    const near = list => list.filter(n => boxes.has(n)).sort((a, b) => onwards(b) - onwards(a)
      || plan.boxes.get(b).rank * side - plan.boxes.get(a).rank * side
      || Math.abs(across(plan.boxes.get(a)) - across(box)) - Math.abs(across(plan.boxes.get(b)) - across(box)) || (a < b ? -1 : 1))[0];
    // To what leads further, and of that to the nearest rank: upstream the last, downstream the first.
    const side = key === (plan.down ? "ArrowUp" : "ArrowLeft") ? 1 : -1, next = side === 1 ? parentsOf : childrenOf;
    if (side === 1) return near(parentsOf(id));
    if (key === (plan.down ? "ArrowDown" : "ArrowRight")) return near(childrenOf(id));
    const row = [...plan.boxes].filter(([, b]) => b.rank === box.rank).sort((a, b) => across(a[1]) - across(b[1])).map(([n]) => n);
    return row[row.indexOf(id) + (key === (plan.down ? "ArrowRight" : "ArrowDown") ? 1 : -1)];
  };
  sheet.addEventListener("keydown", event => {
    const id = event.target.closest && event.target.closest("a.node") && event.target.closest("a.node").getAttribute("data-name");
    if (!id || !event.key.startsWith("Arrow")) return;
    event.preventDefault();
    const to = step(id, event.key);
    if (to) boxes.get(to).focus();
  });
  return frame(sheet, plan, focus, pad);
}

// The sheet in a box that scrolls, with buttons to zoom.
function frame(sheet, plan, focus, pad) {
  const box = el("div", { class: "canvas" }, sheet);
  const width = plan.width + 2 * pad, height = plan.height + 2 * pad;
  let zoom = 1;
  const set = to => {
    const middle = [(box.scrollLeft + box.clientWidth / 2) / zoom, (box.scrollTop + box.clientHeight / 2) / zoom];
    zoom = Math.min(2, Math.max(0.08, to));
    sheet.setAttribute("width", width * zoom);
    sheet.setAttribute("height", height * zoom);
    box.scrollLeft = middle[0] * zoom - box.clientWidth / 2;
    box.scrollTop = middle[1] * zoom - box.clientHeight / 2;
  };
  const whole = () => Math.min(1, (box.clientWidth - 4) / width, (box.clientHeight - 4) / height);
  const settle = () => {
    // Small enough to see much, large enough to be read.
    const wide = Math.min(1, (box.clientWidth - 4) / width);
    const to = Math.max(wide, focus === null ? OVERVIEW : READABLE);
    box.style.height = `${Math.max(170, height * to + 20)}px`; // its greatest height is the style sheet's
    set(to);
    const at = focus !== null && plan.boxes.get(focus);
    box.scrollLeft = at ? (at.x + at.width / 2 + pad) * zoom - box.clientWidth / 2 : 0;
    box.scrollTop = ((at ? at.y + pad : height / 2)) * zoom - box.clientHeight / 2;
  };
  sheet.setAttribute("width", width);
  sheet.setAttribute("height", height);
  requestAnimationFrame(settle);
  let held = null;
  box.addEventListener("pointerdown", e => {
    if (e.pointerType === "mouse" && e.button === 0 && !e.target.closest("a")) held = [e.clientX + box.scrollLeft, e.clientY + box.scrollTop];
  });
  box.addEventListener("pointermove", e => {
    if (held) { box.scrollLeft = held[0] - e.clientX; box.scrollTop = held[1] - e.clientY; }
  });
  for (const end of ["pointerup", "pointerleave", "pointercancel"]) box.addEventListener(end, () => { held = null; });
  const button = (sign, title, act) => el("button", { type: "button", title, "aria-label": title, onclick: act }, sign);
  return el("div", { class: "lineage" }, box, el("div", { class: "zoom" },
    button("+", "larger", () => set(zoom * 1.25)), button("−", "smaller", () => set(zoom / 1.25)), button("⤢", "all of it", () => { set(whole()); })));
}

// How many steps up and down are shown.
function hopControls(name, up, down, go) {
  const select = (label, value, act) => el("label", {}, label, el("select", { onchange: e => act(e.target.value) },
    HOPS.map(h => el("option", { value: h, selected: h === value }, h))));
  return el("div", { class: "hops" },
    select("steps up ", up, v => go(v, down)), select("steps down ", down, v => go(up, v)));
}
