// Whether an answer is right, told to the service by whoever looks at it.

import { byId, make } from "./dom.js";
import { ask, Problem } from "./service.js";

const MOST_LABELS = 1000; // that are offered; others can be written

const choices = byId("verdict-choices");
const form = byId("truth");
const input = byId("true-label");
const wrong = byId("wrong");
const note = byId("verdict-note");

let item = null; // what is asked about: { found, requestId, place, told }

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
  choices.hidden = item.told !== null;
  note.textContent = item.told === null ? "" : `Thank you. Noted as ${item.told}.`;
}

function unfold(open) {
  form.hidden = !open;
  wrong.setAttribute("aria-expanded", open);
}

async function tell(label) {
  const about = item;
  const body = JSON.stringify({ request_id: about.requestId, image: about.place, label });
  try {
    await ask("feedback", "json", { method: "POST", body });
    about.told = label;
    if (item !== about) return;
    askVerdict(about);
    note.focus(); // what had the focus is gone
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
    if (item === about) note.textContent = `${problem.title}. ${problem.detail}`;
  }
}

byId("right").addEventListener("click", () => tell(item.found.label));
wrong.addEventListener("click", () => {
  unfold(form.hidden);
  if (!form.hidden) input.focus();
});
form.addEventListener("submit", (event) => {
  event.preventDefault();
  tell(input.value.trim());
});
