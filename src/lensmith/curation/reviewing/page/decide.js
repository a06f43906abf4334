// Decisions: they count at once, and go to the server in the background. Undo takes back the last step of this page.

import { byId } from "./dom.js";
import { Outbox, Problem } from "./server.js";
import { mineOn, setPending, settle, state } from "./state.js";
import { announce } from "./text.js";

const steps = []; // each a list of { position, id }
let outbox = null;
let show = () => {};

export function openOutbox(name, redraw) {
  show = redraw;
  outbox = new Outbox(name, waitingChanged);
  for (const { id, by, path, action, label } of outbox.waiting) {
    const position = state.paths.indexOf(path);
    if (by === state.reviewer && position >= 0) setPending(position, id, action === "undo" ? null : [id, by, action, label ?? ""]);
  }
  outbox.work();
}

export const waiting = () => outbox?.waiting.length ?? 0;

// Decide on several pictures in one step. The promise is rejected with the first Problem.
export function decide(positions, action, label = "", newClass = false) {
  const by = state.reviewer;
  const step = [];
  const answers = positions.map((position) => {
    const { id, answered } = outbox.send({ by, position, path: state.paths[position], action, label, new_class: newClass });
    step.push({ position, id });
    setPending(position, id, [id, by, action, label]);
    return follow(position, id, answered);
  });
  steps.push(step);
  return Promise.all(answers);
}

// Ask the server for a class that the page does not know; nothing counts before it has answered.
export async function decideWithClass(positions, name, newClass) {
  const [first, ...others] = positions;
  const { id, answered } = outbox.send({ by: state.reviewer, position: first, path: state.paths[first], action: "label",
    label: name, new_class: newClass });
  const content = await answered;
  const label = content.decision[3];
  take(first, id, content);
  steps.push([{ position: first, id }]);
  if (others.length) {
    decide(others, "label", label);
    steps.push([...steps.splice(-2).flat()]);
  }
  return label;
}

// Take back the last step, or else the reviewer's own decision on `position`; the position to show, or null.
export function undo(position) {
  const own = mineOn(position);
  const step = steps.pop() ?? (own ? [{ position, id: own[0] }] : []);
  for (const { position: where, id: undoes } of step) {
    const { id, answered } = outbox.send({ by: state.reviewer, position: where, path: state.paths[where],
      action: "undo", undoes });
    setPending(where, id, null);
    follow(where, id, answered).catch(() => {});
  }
  return step[0]?.position ?? null;
}

async function follow(position, id, answered) {
  try {
    take(position, id, await answered);
  } catch (problem) {
    settle(position, id, null);
    if (problem instanceof Problem) announceProblem(problem.message);
    show();
    throw problem;
  }
}

function take(position, id, content) {
  state.labels = content.labels;
  settle(position, id, content.decided);
  show();
}

function announceProblem(text) {
  byId("message").textContent = text;
}

function waitingChanged(count, problem) {
  const notice = byId("notice");
  const saved = byId("saved");
  saved.textContent = count ? `${count} to be saved` : `All saved in ${state.journal}`;
  if (!problem) {
    if (!notice.hidden && !count) announce("All decisions are saved.");
    notice.hidden = true;
    return;
  }
  const reason = problem instanceof Problem ? problem.message : "The review does not answer; start it again with the same command.";
  const text = `${reason} ${count} ${count === 1 ? "decision waits" : "decisions wait"} in this browser, and will be sent.`;
  if (notice.textContent !== text) notice.textContent = text;
  notice.hidden = false;
}
