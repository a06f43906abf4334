// The comparison of champion and challenger while a canary release is under way, and how the last one ended.

import { byId, make } from "./dom.js";
import { milliseconds, percent } from "./format.js";
import { ask } from "./service.js";

const EVERY_MS = 5_000; // as often as a service looks into the registry
const MISSING_EVERY_MS = 30_000;

const section = byId("rollout");

const OUTCOMES = { promoted: "Promoted", rolled_back: "Rolled back", aborted: "Aborted" };
const GUARDS = {
  errors: "Errors", latency: "Latency", classes: "Classes", feedback: "Feedback", agreement: "Agreement",
};

// value and aside: take one side's figures; null and "" where they are unknown.
const ROWS = [
  { name: "Requests", value: (side) => side.requests.toLocaleString("en") },
  {
    name: "Failed", value: (side) => shown(side.error_rate, percent),
    aside: (side) => range(side.error_rate_interval),
  },
  { name: "P99", value: (side) => shown(side.p99_ms, milliseconds) },
  { name: "P99 of its work", value: (side) => shown(side.work_p99_ms, milliseconds) },
  {
    name: "Right by feedback", value: (side) => shown(side.accuracy, percent),
    aside: (side) => (side.labels ? `of ${side.labels.toLocaleString("en")}, ${range(side.accuracy_interval)}` : ""),
  },
];

let timer = null;

const shown = (value, format) => (value === null || value === undefined ? "–" : format(value));
const range = (interval) => (interval ? `${interval.map((end) => (100 * end).toFixed(1)).join(" to ")} %` : "");

// Start polling, or poll at once: a token may have been entered.
export function watchRollout() {
  document.addEventListener("visibilitychange", resume);
  resume();
}

function resume() {
  clearTimeout(timer);
  if (!document.hidden) look();
}

async function look() {
  let next = MISSING_EVERY_MS;
  try {
    const { rollout, decision, comparison, version, reachable } = await ask("rollout", "json");
    section.hidden = !rollout;
    if (rollout) show(rollout, decision, comparison, version, reachable);
    if (version) next = EVERY_MS; // a rollout may begin at any time
  } catch (problem) {
    if (problem.status === undefined) throw problem;
    section.hidden = true; // an older service, an unreachable one, or one that requires a token
    if (problem.status === 0) next = EVERY_MS;
  }
  clearTimeout(timer);
  if (!document.hidden) timer = setTimeout(look, next);
}

function show(rollout, decision, comparison, version, reachable) {
  const share = `${rollout.share} % of requests`;
  const how = rollout.shadow ? `works on copies of ${share}` : `answers ${share}`;
  const state = decision ? OUTCOMES[decision.outcome] ?? decision.outcome : "Under way";
  section.dataset.outcome = decision?.outcome ?? "";
  say("rollout-title", decision ? "Last canary release" : "Canary release");
  const now = decision ? `version ${version} serves` : `version ${rollout.challenger} ${how}`;
  say("rollout-note", reachable ? now : `${now}; the registry does not answer`);
  say("rollout-state", state);
  say("rollout-reason", decision ? decision.reason : "");
  byId("rollout-reason").hidden = !decision;
  const known = Boolean(comparison?.champion && comparison.challenger);
  byId("rollout-figures").hidden = !known;
  if (known) showFigures(rollout, comparison);
}

function showFigures(rollout, comparison) {
  const sides = [comparison.champion, comparison.challenger];
  const heads = [["Champion", rollout.champion], ["Challenger", rollout.challenger]].map(([role, which]) => {
    const head = make("th", "", `${role} `);
    head.scope = "col";
    head.append(make("span", "which", which));
    return head;
  });
  byId("rollout-sides").replaceChildren(make("td"), ...heads);
  byId("rollout-rows").replaceChildren(...ROWS.map(({ name, value, aside = () => "" }) => {
    const cells = sides.map((side) => cell(value(side), aside(side)));
    return row(name, ...cells);
  }), ...together(comparison));
  byId("rollout-guards").replaceChildren(...Object.entries(comparison.guards ?? {}).map(([name, { state, reason }]) => {
    const item = make("li");
    item.dataset.state = state;
    item.append(make("span", "guard", GUARDS[name] ?? name), make("span", "state", state), make("span", "why", reason));
    return item;
  }));
}

// Figures of both versions together.
function together({ class_shift: moved, agreement, agreement_interval: interval, compared }) {
  const rows = [];
  if (moved !== null && moved !== undefined) rows.push(row("Class shift", wide(percent(moved), "of answers")));
  if (compared) {
    const aside = `of ${compared.toLocaleString("en")}, ${range(interval)}`;
    rows.push(row("Agreement", wide(percent(agreement), aside)));
  }
  return rows;
}

function row(name, ...cells) {
  const line = make("tr");
  const head = make("th", "", name);
  head.scope = "row";
  line.append(head, ...cells);
  return line;
}

function cell(value, aside) {
  const made = make("td");
  made.append(make("b", "", value));
  if (aside) made.append(" ", make("span", "aside", aside));
  return made;
}

function wide(value, aside) {
  const made = cell(value, aside);
  made.colSpan = 2;
  return made;
}

// Set text only where it changes, so that screen readers read it once.
function say(id, text) {
  const element = byId(id);
  if (element.textContent !== text) element.textContent = text;
}
