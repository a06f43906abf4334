// Prometheus's text format, as far as it is needed: samples with their labels, sums over them, quantiles of histograms.

const SAMPLE = /^([A-Za-z_:][\w:]*)(?:\{(.*)\})?[ \t]+(\S+)/;
const LABEL = /([A-Za-z_]\w*)="((?:[^"\\]|\\.)*)"/g;
const ESCAPED = { n: "\n", '"': '"', "\\": "\\" };

// Name -> [{ labels, value }], in the order of the text. Lines that are neither samples nor comments are ignored.
export function parse(text) {
  const families = new Map();
  for (const line of text.split("\n")) {
    const [, name, inBraces = "", written] = SAMPLE.exec(line) ?? [];
    if (name === undefined) continue;
    const labels = {};
    for (const [, key, value] of inBraces.matchAll(LABEL)) {
      labels[key] = value.replace(/\\(.)/g, (whole, letter) => ESCAPED[letter] ?? whole);
    }
    if (!families.has(name)) families.set(name, []);
    families.get(name).push({ labels, value: number(written) });
  }
  return families;
}

function number(written) {
  const infinite = /^([+-]?)Inf$/i.exec(written);
  return infinite ? Number(`${infinite[1]}Infinity`) : Number(written);
}

// The sum of a name's samples whose labels `wanted` takes; null: there is no such name.
export function sum(families, name, wanted = () => true) {
  const samples = families.get(name);
  return samples ? samples.filter(({ labels }) => wanted(labels)).reduce((total, { value }) => total + value, 0) : null;
}

// Upper bound -> count of all below it, over the samples of a histogram that `wanted` takes.
export function buckets(families, name, wanted = () => true) {
  const counts = new Map();
  for (const { labels, value } of families.get(`${name}_bucket`) ?? []) {
    if (!wanted(labels)) continue;
    const bound = number(labels.le);
    counts.set(bound, (counts.get(bound) ?? 0) + value);
  }
  return counts;
}

// The value below which a share of the observations lies, as histogram_quantile of Prometheus estimates it: evenly
// spread within a bucket, the highest finite bound for what lies above it. Null: there are no observations.
export function quantile(share, counts) {
  const ordered = [...counts].sort(([left], [right]) => left - right);
  const total = ordered.at(-1)?.[1] ?? 0;
  if (!(total > 0)) return null;
  const rank = share * total;
  let lower = 0;
  let below = 0;
  for (const [upper, count] of ordered) {
    if (count >= rank && count > below) {
      return upper === Infinity ? lower : lower + (upper - lower) * ((rank - below) / (count - below));
    }
    lower = upper;
    below = Math.max(below, count);
  }
  return lower;
}
