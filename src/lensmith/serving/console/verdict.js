// Feedback from the page: whether an answer is right, and the true label where it is not.

import { byId, make } from "./dom.js";
import { ask, Problem } from "./service.js";

const MOST_LABELS = 1000; // that are offered; others can be written

const choices = byId("verdict-choices");
const form = byId("truth");
const input = byId("true-label");
const wrong = byId("wrong");
const note = byId("verdict-note");

let item = null; // the picture that feedback is asked for: { found, requestId, place, trueLabel }

export function offerLabels(labels) {
  byId("labels").replaceChildren(...labels.slice(0, MOST_LABELS).map((label) => {
    const option = make("option");
    option.value = label;
    return option;
  }));
}

export function askVerdict(answered) {
  item = answered;
  form.reset();
  unfold(false);
  choices.hidden = item.trueLabel !== null;
  note.textContent = item.trueLabel === null ? "" : `Thank you. Noted as ${item.trueLabel}.`;
}

function unfold(open) {
  form.hidden = !open;
  wrong.setAttribute("aria-expanded", open);
}

async function sendFeedback(label) {
  const about = item;
  const body = JSON.stringify({ request_id: about.requestId, image: about.place, label });
  try {
    await ask("feedback", "json", { method: "POST", body });
    about.trueLabel = label;
    if (item !== about) return;
    askVerdict(about);
    note.focus(); // what had the focus is gone
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
    if (item === about) note.textContent = `${problem.title}. ${problem.detail}`;
  }
}

byId("right").addEventListener("click", () => sendFeedback(item.found.label));
wrong.addEventListener("click", () => {
  unfold(form.hidden);
  if (!form.hidden) input.focus();
});
form.addEventListener("submit", (event) => {
  event.preventDefault();
  sendFeedback(input.value.trim());
});
