// A sparkline of the last two minutes as SVG, hidden from screen readers.

export const SPAN_MS = 120_000;
const GAP_MS = 7_000; // longer between two points: the page was hidden, and nothing is known of it
const [WIDTH, HEIGHT] = [100, 28];

// points: [{ atMs, value }], value null where there is none. least: the top of the scale is never below it.
export function sparkline(points, least) {
  const viewBox = `0 0 ${WIDTH} ${HEIGHT}`;
  const svg = draw("svg", { class: "spark", viewBox, preserveAspectRatio: "none", "aria-hidden": "true" });
  svg.append(draw("line", { class: "spark-base", x1: 0, x2: WIDTH, y1: HEIGHT - 0.5, y2: HEIGHT - 0.5 }));
  const now = points.at(-1)?.atMs ?? 0;
  const top = points.reduce((most, { value }) => Math.max(most, value ?? 0), least) * 1.1;
  for (const run of runs(points)) {
    const places = run.map(({ atMs, value }) => {
      const x = WIDTH * (1 - (now - atMs) / SPAN_MS);
      return [x.toFixed(2), (HEIGHT - 1 - (HEIGHT - 3) * (value / top)).toFixed(2)];
    });
    const line = places.map((place) => place.join(",")).join(" ");
    const area = `${places[0][0]},${HEIGHT} ${line} ${places.at(-1)[0]},${HEIGHT}`;
    svg.append(draw("polygon", { class: "spark-area", points: area }));
    svg.append(draw("polyline", { class: "spark-line", points: line }));
  }
  return svg;
}

// Segments without a gap.
function runs(points) {
  const found = [];
  let last = null;
  for (const point of points) {
    if (point.value === null) {
      last = null;
      continue;
    }
    if (last === null || point.atMs - last.atMs > GAP_MS) found.push([]);
    found.at(-1).push(point);
    last = point;
  }
  return found;
}

function draw(tag, attributes) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}
