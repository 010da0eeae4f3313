// Elements out of plain values. Text only ever becomes text: nothing in the data is read as markup.
//
//   el("a", {href: "#/", class: "name"}, "all ", el("b", {}, "assets"))

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  for (const child of children.flat(Infinity)) if (child !== null && child !== undefined && child !== false) node.append(child);
  return node;
}
const el = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
const svg = (tag, attributes = {}, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

// Paragraphs, and `code` between backticks: all that docs blocks use of Markdown.
function prose(text) {
  return text.split(/\n\s*\n/).filter(p => p.trim()).map(p => el("p", {}, inline(p)));
}
function inline(text) {
  return text.split(/(`[^`\n]+`)/).map(part => part.length > 2 && part.startsWith("`") && part.endsWith("`") ? el("code", {}, part.slice(1, -1)) : part);
}

function table(heads, rows, label) {
  const head = el("tr", {}, heads.map(h => el("th", { scope: "col" }, h)));
  return el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": label },
    el("table", {}, el("thead", {}, head), el("tbody", {}, rows.map(cells => el("tr", {},
      cells.map((c, i) => i ? el("td", {}, c) : el("th", { scope: "row" }, c)))))));
}

const count = n => Number(n).toLocaleString("en");
function bytes(n) {
  for (const [size, unit] of [[1e9, "GB"], [1e6, "MB"], [1e3, "kB"]]) if (n >= size) return `${(n / size).toFixed(1)} ${unit}`;
  return `${n} bytes`;
}
function duration(s) {
  if (s >= 3600) return `${(s / 3600).toFixed(1)} h`;
  return s >= 90 ? `${(s / 60).toFixed(1)} min` : `${Number(s.toFixed(s < 10 ? 2 : 0))} s`;
}
const when = at => at ? at.slice(0, 16).replace("T", " ") + " UTC" : "–";
const short = hash => hash ? hash.slice(0, 12) : "–";
