// Search over names and descriptions: every word must be found; a name counts for more than a text, its beginning for more
// than its middle.
//
//   find(entries, "chosen pair") → [{entry, score}, …], best first
//
// An entry is {type, name, text, href}. A thousand of them are read through in about a millisecond, so there is no index.
const WEIGHT = { asset: 3, column: 2, check: 1, group: 1, module: 0 };

function find(entries, query, limit = 40) {
  const words = query.toLowerCase().split(/[\s]+/).filter(Boolean);
  if (!words.length) return [];
  const out = [];
  for (const entry of entries) {
    entry.low = entry.low || entry.name.toLowerCase();
    entry.lowText = entry.lowText || entry.text.toLowerCase();
    let score = WEIGHT[entry.type];
    for (const word of words) {
      const value = worth(entry, word);
      if (!value) { score = 0; break; }
      score += value;
    }
    if (score) out.push({ entry, score });
  }
  out.sort((a, b) => b.score - a.score || a.entry.name.length - b.entry.name.length || (a.entry.name < b.entry.name ? -1 : 1));
  return out.slice(0, limit);
}

function worth(entry, word) {
  const at = entry.low.indexOf(word);
  if (at === 0) return entry.low.length === word.length ? 100 : 60;
  if (at > 0) return /[^a-z0-9]/.test(entry.low[at - 1]) ? 45 : 30;
  return entry.lowText.includes(word) ? 10 : 0;
}

// The names that a mistyped one comes nearest to, at most two letters away.
function nearest(entries, query, limit = 5) {
  const word = query.trim().toLowerCase();
  if (word.length < 4 || word.length > 80) return [];
  return entries.map(entry => ({ entry, off: distance(word, entry.name.toLowerCase()) }))
    .filter(x => x.off <= 2).sort((a, b) => a.off - b.off).slice(0, limit);
}

function distance(a, b) {
  if (Math.abs(a.length - b.length) > 2) return 3;
  let before = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      row.push(Math.min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1)));
    }
    before = row;
  }
  return before[b.length];
}
