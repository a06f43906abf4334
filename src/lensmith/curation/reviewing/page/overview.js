// What stands around the pictures: buttons of classes, progress, and the end.

import { byId, make } from "./dom.js";
import { progress, state } from "./state.js";
import { number } from "./text.js";

const BUTTONS = 30; // classes that have a button of their own; beyond, the ten with a number

let drawnLabels = "";

// current: label that the reviewer has given; choose: called with the label of a button.
export function drawClasses(current, choose) {
  const key = JSON.stringify(state.labels);
  if (key !== drawnLabels) {
    drawnLabels = key;
    const shown = state.labels.length > BUTTONS ? state.labels.slice(0, 10) : state.labels;
    byId("classes").replaceChildren(...shown.map((label, place) => {
      const button = make("button");
      button.type = "button";
      button.append(...(place < 10 ? [make("kbd", "", String((place + 1) % 10))] : []), make("span", "", label));
      button.dataset.label = label;
      button.onclick = () => choose(label);
      const item = make("li");
      item.append(button);
      return item;
    }));
    const select = byId("of-class");
    const before = select.value;
    select.replaceChildren(new Option("any", ""), ...state.labels.map((label) => new Option(label, label)));
    select.value = state.labels.includes(before) ? before : "";
  }
  for (const { firstChild: button } of byId("classes").children) {
    if (button.dataset.label === current) button.setAttribute("aria-current", "true");
    else button.removeAttribute("aria-current");
  }
}

export function drawProgress() {
  const decided = progress();
  const total = state.paths.length;
  byId("progress").max = total;
  byId("progress").value = decided;
  byId("progress-text").textContent = `${number(decided)} of ${number(total)} decided`;
}

export function drawDone() {
  const isWhole = progress() === state.paths.length;
  byId("done-title").textContent = isWhole ? "Every picture is decided." : "No picture is left here.";
  byId("done-text").textContent = isWhole
    ? `The result is in ${state.out}. Ctrl-C in the terminal ends the review and names the next step.`
    : "Choose other pictures under “Show”.";
}
