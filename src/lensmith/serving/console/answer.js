// The answer for one picture: its ranked classes and timings, or its problem.

import { byId, make } from "./dom.js";
import { milliseconds, percent } from "./format.js";

const answer = byId("answer");
const again = byId("again");

let countdown = null;

function show(state) {
  clearInterval(countdown);
  answer.dataset.state = state;
  answer.setAttribute("aria-busy", state === "waiting");
  if (state !== "found") byId("summary").textContent = "";
}

export const showWaiting = () => show("waiting");

// threshold: confidence below which the model abstains; null: it never does.
export function showAnswer(found, times, threshold) {
  show("found");
  const guess = `${found.label}, ${percent(found.confidence)}`;
  byId("summary").textContent = found.abstained ? `Not sure enough to answer. Likeliest guess: ${guess}` : guess;
  answer.dataset.abstained = found.abstained;
  byId("unsure").hidden = !found.abstained;
  const from = threshold === null ? "" : ` This model answers from a confidence of ${percent(threshold)} on.`;
  byId("unsure-detail").textContent = `Its likeliest guess is ${found.label}.${from}`;
  byId("ranking").replaceChildren(...found.top.map(row));
  if (found.abstained && threshold !== null) {
    const mark = make("i", "mark");
    mark.style.left = `${100 * threshold}%`;
    byId("ranking").querySelector(".bar").append(mark);
  }
  showTimes(times);
}

function row({ label, confidence }) {
  const element = make("li");
  const bar = make("span", "bar");
  bar.setAttribute("aria-hidden", "true");
  bar.append(make("span"));
  bar.firstChild.style.width = `${100 * confidence}%`;
  element.append(make("span", "label", label), make("span", "share", percent(confidence)), bar);
  return element;
}

const COLOUR = { Inference: 1, Service: 1, Decoding: 2, Waiting: 3, Network: 4, "Scaling down here": 5 };

// times: title, and stages as [name, milliseconds] that make up the whole.
function showTimes({ title, stages }) {
  byId("latency-title").textContent = title;
  byId("round-trip").textContent = milliseconds(stages.reduce((sum, [, ms]) => sum + ms, 0));
  byId("stages").replaceChildren(...stages.map(([name, ms]) => {
    const part = make("span", `stage-${COLOUR[name]}`);
    part.style.flexGrow = ms;
    return part;
  }));
  byId("legend").replaceChildren(...stages.map(([name, ms]) => {
    const entry = make("div", `stage-${COLOUR[name]}`);
    entry.append(make("dt", "", name), make("dd", "", milliseconds(ms)));
    return entry;
  }));
}

// retry: sends the picture again; null: that would not help.
export function showProblem(problem, retry) {
  show("failed");
  byId("failed-title").textContent = problem.title;
  byId("failed-detail").textContent = problem.detail;
  byId("failed-reference").textContent = problem.requestId ? `Request ${problem.requestId}` : "";
  again.hidden = retry === null;
  again.onclick = retry;
  const from = performance.now() + 1000 * (problem.retryS ?? 0);
  const count = () => {
    const left = Math.ceil((from - performance.now()) / 1000);
    again.disabled = left > 0;
    again.textContent = left > 0 ? `Send again in ${left} s` : "Send again";
    if (left <= 0) clearInterval(countdown);
  };
  countdown = setInterval(count, 250);
  count();
}
