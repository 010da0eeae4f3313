// A layered drawing of a directed graph, left to right or downwards (Sugiyama, Tagawa and Toda 1981).
//
//   layered([{id: "a", parents: [], width: 90}, {id: "b", parents: ["a"], width: 90}], false)
//     → {boxes: Map {a → {x, y, width, height, rank}, …}, edges: [{from, to, path}], width, height, down}
//
// Ranks by longest path; all edges that leave one node towards later ranks share one way through the ranks between, so a
// node with a hundred readers draws one line there and not a hundred. Order by barycentres, places by isotonic regression:
// equal input, equal drawing. Parents that are not among the nodes are left out.
const HEIGHT = 30, NODE_GAP = 14, WAY_GAP = 6, RANK_GAP = 52;

function layered(nodes, down) {
  const byId = new Map(nodes.map(n => [n.id, n]));
  const parents = new Map(nodes.map(n => [n.id, n.parents.filter(p => byId.has(p))]));
  const children = new Map(nodes.map(n => [n.id, []]));
  for (const [id, from] of parents) for (const p of from) children.get(p).push(id);
  const rank = ranks(nodes, parents, children);
  const rows = [], left = new Map(), right = new Map();
  // `along` the direction of the ranks, `across` it; what is not a node but a way through a rank has no length.
  const shape = new Map();
  const item = (id, r, along, across) => {
    (rows[r] = rows[r] || []).push(id);
    left.set(id, []);
    right.set(id, []);
    shape.set(id, { along, across });
  };
  for (const n of nodes) item(n.id, rank.get(n.id), down ? HEIGHT : n.width, down ? n.width : HEIGHT);
  const link = (a, b) => { right.get(a).push(b); left.get(b).push(a); };
  const ways = new Map();
  for (const n of nodes) {
    const start = rank.get(n.id), last = Math.max(start, ...children.get(n.id).map(c => rank.get(c)));
    const way = [n.id];
    for (let r = start + 1; r < last; r++) {
      const id = "\u0000" + n.id + "\u0000" + r;
      item(id, r, 0, 2);
      link(way[way.length - 1], id);
      way.push(id);
    }
    ways.set(n.id, way);
    for (const c of children.get(n.id)) link(way[rank.get(c) - start - 1], c);
  }
  order(rows, left, right);
  const at = places(rows, left, right, shape);
  const edge = (id, side) => at.get(id) + side * shape.get(id).across / 2;
  const least = Math.min(0, ...rows.flat().map(id => edge(id, -1)));
  const lengths = rows.map(row => Math.max(...row.map(id => shape.get(id).along)));
  const starts = [];
  let start = 0;
  for (const length of lengths) { starts.push(start); start += length + RANK_GAP; }
  const point = (along, across) => down ? [across, along] : [along, across];
  const boxes = new Map(nodes.map(n => {
    const [x, y] = point(starts[rank.get(n.id)], edge(n.id, -1) - least);
    return [n.id, { x, y, width: n.width, height: HEIGHT, rank: rank.get(n.id) }];
  }));
  const edges = [];
  for (const n of nodes) {
    const first = rank.get(n.id), way = ways.get(n.id);
    for (const c of children.get(n.id)) {
      const points = [[starts[first] + shape.get(n.id).along, at.get(n.id) - least]];
      for (let r = first + 1; r < rank.get(c); r++) {
        const across = at.get(way[r - first]) - least;
        points.push([starts[r], across], [starts[r] + lengths[r], across]);
      }
      points.push([starts[rank.get(c)], at.get(c) - least]);
      edges.push({ from: n.id, to: c, path: curve(points, point) });
    }
  }
  const size = point(Math.max(0, start - RANK_GAP), Math.max(0, ...rows.flat().map(id => edge(id, 1) - least)));
  return { boxes, edges, width: size[0], height: size[1], down };
}

function ranks(nodes, parents, children) {
  const rank = new Map(), waiting = new Map(nodes.map(n => [n.id, parents.get(n.id).length]));
  const ready = nodes.filter(n => !waiting.get(n.id)).map(n => n.id);
  for (let i = 0; i < ready.length; i++) {
    const id = ready[i];
    rank.set(id, Math.max(-1, ...parents.get(id).map(p => rank.get(p))) + 1);
    for (const c of children.get(id)) {
      waiting.set(c, waiting.get(c) - 1);
      if (waiting.get(c) === 0) ready.push(c);
    }
  }
  for (const n of nodes) if (!rank.has(n.id)) rank.set(n.id, 0); // a circle, which the chain refuses
  // What nothing leads to stands beside its first reader, not at the far left.
  for (const n of nodes) {
    const readers = children.get(n.id);
    if (!parents.get(n.id).length && readers.length) rank.set(n.id, Math.max(0, Math.min(...readers.map(c => rank.get(c))) - 1));
  }
  const least = Math.min(...rank.values());
  for (const [id, r] of rank) rank.set(id, r - least);
  return rank;
}

function order(rows, left, right) {
  const place = new Map();
  const number = row => row.forEach((id, i) => place.set(id, i));
  rows.forEach(number);
  const sweep = (row, near) => {
    const centre = new Map(row.map((id, i) => {
      const at = near.get(id).map(n => place.get(n));
      return [id, at.length ? at.reduce((a, b) => a + b, 0) / at.length : i];
    }));
    row.sort((a, b) => centre.get(a) - centre.get(b) || place.get(a) - place.get(b));
    number(row);
  };
  for (let turn = 0; turn < 8; turn++) {
    for (let r = 1; r < rows.length; r++) sweep(rows[r], left);
    for (let r = rows.length - 2; r >= 0; r--) sweep(rows[r], right);
  }
}

function places(rows, left, right, shape) {
  const y = new Map();
  const between = (a, b) => {
    const thin = shape.get(a).along === 0 || shape.get(b).along === 0;
    return (shape.get(a).across + shape.get(b).across) / 2 + (thin ? WAY_GAP : NODE_GAP);
  };
  for (const row of rows) {
    let at = 0;
    row.forEach((id, i) => { if (i) at += between(row[i - 1], id); y.set(id, at); });
    row.forEach(id => y.set(id, y.get(id) - at / 2));
  }
  const settle = row => {
    const wanted = row.map(id => {
      const near = [...left.get(id), ...right.get(id)].map(n => y.get(n));
      return near.length ? near.reduce((a, b) => a + b, 0) / near.length : y.get(id);
    });
    spread(row, wanted, between).forEach((v, i) => y.set(row[i], v));
  };
  for (let turn = 0; turn < 10; turn++) {
    rows.forEach(settle);
    [...rows].reverse().forEach(settle);
  }
  return y;
}

// The places nearest to the wanted ones (least squares) that keep order and distances: pool adjacent violators.
function spread(row, wanted, between) {
  const shift = [0];
  for (let i = 1; i < row.length; i++) shift.push(shift[i - 1] + between(row[i - 1], row[i]));
  const blocks = [];
  for (let i = 0; i < row.length; i++) {
    blocks.push({ sum: wanted[i] - shift[i], count: 1 });
    while (blocks.length > 1) {
      const [a, b] = blocks.slice(-2);
      if (a.sum / a.count <= b.sum / b.count) break;
      blocks.splice(-2, 2, { sum: a.sum + b.sum, count: a.count + b.count });
    }
  }
  const out = [];
  for (const b of blocks) for (let i = 0; i < b.count; i++) out.push(b.sum / b.count + shift[out.length]);
  return out;
}

// `points` are [along, across]; `point` turns such a pair into [x, y].
function curve(points, point) {
  const p = (along, across) => point(along, across).map(v => Math.round(v * 10) / 10).join(" ");
  let d = `M${p(...points[0])}`;
  for (let i = 1; i < points.length; i++) {
    const [[a, ay], [b, by]] = [points[i - 1], points[i]];
    const bend = Math.min(RANK_GAP, b - a) / 2;
    d += ay === by ? `L${p(b, by)}` : `C${p(a + bend, ay)} ${p(b - bend, by)} ${p(b, by)}`;
  }
  return d;
}
