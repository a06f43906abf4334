// What the page knows: pictures, classes, decisions of everybody, and what follows from them for the reviewer.

export const state = {
  reviewer: "",
  labels: [],
  paths: [],
  own: [],
  suggested: [],
  scores: {},
  reasons: {},
  named: {},
  decided: new Map(), // position → [[id, reviewer, action, label], …], the latest last
  answers: new Map(), // position → [[label, probability], …], the likeliest first
  seen: 0,
  answered: 0,
};

export function load(content) {
  Object.assign(state, content);
  state.decided = asMap(content.decided);
  state.answers = asMap(content.answers);
}

export function merge(changes) {
  state.labels = changes.labels;
  for (const [position, by] of asMap(changes.decided)) setDecided(position, by);
  for (const [position, top] of asMap(changes.answers)) state.answers.set(position, top);
  state.seen = changes.seen;
  state.answered = changes.answered;
}

// Decisions that were made here and are not answered yet count at once.
const pending = new Map(); // position → { id, decision }, whose decision is null for an undo

export function setDecided(position, by) {
  const mine = pending.get(position);
  const others = by.filter(([, reviewer]) => !mine || reviewer !== state.reviewer);
  const all = mine?.decision ? [...others, mine.decision] : others;
  if (all.length) state.decided.set(position, all);
  else state.decided.delete(position);
}

export function setPending(position, id, decision) {
  pending.set(position, { id, decision });
  setDecided(position, decisionsOn(position));
}

// The server has answered: `by` are the decisions that count, or null where it refused.
export function settle(position, id, by) {
  if (pending.get(position)?.id === id) pending.delete(position);
  setDecided(position, by ?? decisionsOn(position).filter(([each]) => each !== id));
}

const asMap = (object) => new Map(Object.entries(object).map(([key, value]) => [Number(key), value]));

export const decisionsOn = (position) => state.decided.get(position) ?? [];
export const mineOn = (position) => decisionsOn(position).findLast(([, reviewer]) => reviewer === state.reviewer);
export const latestOn = (position) => mineOn(position) ?? decisionsOn(position).at(-1);
const settledOn = (position) => decisionsOn(position).filter(([, , action]) => action !== "skip");

// The label that counts now, for the reviewer.
export function labelOf(position) {
  const [, , action, label] = mineOn(position) ?? [];
  return action === undefined || action === "skip" ? state.own[position] : label;
}

// [label, share or null, source] of the best suggestion; null where there is none.
export function suggestionFor(position) {
  const answer = state.answers.get(position)?.[0];
  if (answer) return [answer[0], answer[1], "model"];
  const listed = state.suggested[position];
  return listed?.[0] ? [listed[0], listed[1], "list"] : null;
}

export const statusOf = (position) => {
  const latest = latestOn(position);
  if (!latest) return "open";
  const [, , action, label] = latest;
  if (action === "label") return label === state.own[position] ? "kept" : "changed";
  return action === "exclude" ? "excluded" : "skipped";
};

export const isContested = (position) =>
  new Set(settledOn(position).map(([, , action, label]) => `${action} ${label}`)).size > 1;

const differs = (position) => {
  const suggestion = suggestionFor(position);
  return suggestion !== null && suggestion[0] !== labelOf(position);
};

export const FILTERS = {
  todo: (position) => decisionsOn(position).length === 0,
  mine: (position) => mineOn(position) === undefined,
  all: () => true,
  decided: (position) => settledOn(position).length > 0,
  changed: (position) => statusOf(position) === "changed",
  differs,
  contested: isContested,
  skipped: (position) => statusOf(position) === "skipped",
  excluded: (position) => statusOf(position) === "excluded",
};

export function positions(filter, label) {
  const found = [];
  for (let position = 0; position < state.paths.length; position += 1) {
    if (FILTERS[filter](position) && (!label || labelOf(position) === label)) found.push(position);
  }
  return found;
}

export function progress() {
  let decided = 0;
  for (const position of state.decided.keys()) decided += settledOn(position).length > 0;
  return decided;
}
