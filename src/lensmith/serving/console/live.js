// The strip of live figures: polls the metrics while the page is visible, and draws the last minutes.

import { byId, make } from "./dom.js";
import { figures, inWindow, reading } from "./figures.js";
import { bytes, counted, figure } from "./format.js";
import { ask } from "./service.js";
import { SPAN_MS, sparkline } from "./sparkline.js";

const EVERY_MS = 2_000;
const MISSING_EVERY_MS = 30_000;

const strip = byId("live");

// value: the number shown, null where there is none. least: the top of its line's scale is never below. over: beyond it
// the tile asks for attention. more: the tooltip.
const TILES = [
  {
    id: "requests", name: "Requests", unit: () => "/s", least: 1,
    value: (now) => now.perSecond,
    more: (now) => (now.requests === null ? "" : `${counted(now.requests, "request")} in ${now.seconds.toFixed(0)} s`),
  },
  {
    id: "p50", name: "P50", unit: () => "ms", least: 20,
    value: (now) => inMs(now.p50),
    more: () => "Half of the requests took no longer",
  },
  {
    id: "p99", name: "P99", unit: () => "ms", least: 20, over: 200,
    value: (now) => inMs(now.p99),
    more: () => "99 of 100 requests took no longer",
  },
  {
    id: "errors", name: "Errors", unit: () => "%", least: 1, over: 0.5,
    value: (now) => (now.errors === null ? null : 100 * now.errors),
    more: () => "Share of requests that failed inside the service",
  },
  {
    id: "shed", name: "Shed", unit: () => "/s", least: 1, over: 0,
    value: (now) => now.shed,
    more: () => "Requests refused by admission control, so that the others are answered in time",
  },
  {
    id: "under-way", name: "Under way", unit: (now) => `on ${counted(now.threads, "thread")}`, least: 2,
    value: (now) => now.underWay,
    more: () => "Pictures being worked on or waiting",
  },
];
const MEMORY_OVER = 0.9;

let readings = [];
let history = []; // { atMs, figures } of the last two minutes
let timer = null;
let servedBefore = null;
let onServed = () => {};

const inMs = (seconds) => (seconds === null ? null : 1000 * seconds);

// Start polling. changed: called when other models are served than before.
export function watch(changed) {
  onServed = changed;
  byId("tiles").replaceChildren(...TILES.map(({ id, name }) => tile(id, name)), tile("memory", "Memory"));
  document.addEventListener("visibilitychange", resume);
  resume();
}

function tile(id, name) {
  const element = make("div", "tile");
  element.id = `tile-${id}`;
  element.append(make("dt", "", name), make("dd", "figure", "–"), make("dd", "line"));
  element.lastChild.append(sparkline([], 1));
  return element;
}

function resume() {
  clearTimeout(timer);
  if (!document.hidden) look();
}

async function look() {
  let next = EVERY_MS;
  try {
    const latest = reading(await ask("metrics", "text"), performance.now());
    readings = inWindow(readings, latest);
    const now = figures(readings);
    history = [...history.filter(({ atMs }) => latest.atMs - atMs <= SPAN_MS), { atMs: latest.atMs, now }];
    show(now);
  } catch (problem) {
    readings = [];
    strip.dataset.state = "missing";
    byId("live-note").textContent = problem.status === 0
      ? "No live figures: the service cannot be reached."
      : "No live figures: the metrics of this service are on another port, or this page may not read them.";
    next = problem.status === 0 ? EVERY_MS : MISSING_EVERY_MS;
  }
  clearTimeout(timer);
  if (!document.hidden) timer = setTimeout(look, next);
}

function show(now) {
  strip.dataset.state = "shown";
  byId("live-note").textContent = "figures of the last 10 s, lines of the last 2 min";
  for (const each of TILES) {
    const amount = each.value(now);
    const unit = each.unit(now);
    const over = amount !== null && amount > each.over;
    fill(each.id, {
      name: over && each.over > 0 ? `${each.name} > ${each.over} ${unit}` : each.name,
      over,
      amount: amount === null ? null : figure(amount),
      unit,
      line: sparkline(history.map((past) => ({ atMs: past.atMs, value: each.value(past.now) })), each.least),
      more: each.more(now),
    });
  }
  showMemory(now);
  showServed(now.served);
}

function fill(id, { name, over, amount, unit, line, more }) {
  const element = byId(`tile-${id}`);
  const [label, value, picture] = element.children;
  element.classList.toggle("over", over);
  element.title = more;
  label.textContent = name;
  value.replaceChildren(make("b", "", amount ?? "–"));
  if (amount !== null) value.append(" ", make("span", "unit", unit));
  picture.replaceChildren(line);
}

function showMemory({ memory, memoryLimit }) {
  const share = memoryLimit > 0 ? Math.min(1, memory / memoryLimit) : 0;
  const meter = make("span", "meter");
  meter.append(make("span"));
  meter.firstChild.style.width = `${100 * share}%`;
  const line = make("span", "against");
  if (memoryLimit > 0) line.append(meter, make("span", "", `of ${bytes(memoryLimit)}`));
  const over = share > MEMORY_OVER;
  const [amount, unit] = bytes(memory).split(" ");
  const more = "Memory of the service's processes, and what they may have";
  fill("memory", { name: over ? "Memory > 90 %" : "Memory", over, amount, unit, line, more });
}

function showServed(served) {
  const rows = served.map(({ full, engine, precision, perSecond }) => {
    const row = make("li");
    row.append(make("span", "which", full), make("span", "how", `${engine} ${precision}`));
    if (perSecond !== null) row.append(make("span", "much", `${figure(perSecond)} pictures/s`));
    return row;
  });
  byId("served").replaceChildren(...rows);
  const which = served.map(({ full }) => full).join();
  if (servedBefore !== null && servedBefore !== which) onServed();
  servedBefore = which;
}
