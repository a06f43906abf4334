// The box for a class's name: completes names that are known, and asks before it adds one.

import { byId, make } from "./dom.js";
import { state } from "./state.js";

const MOST = 8;

const input = byId("class-name");
const list = byId("matches");
const message = byId("message");
let active = 0;
let shown = []; // { label, isNew }
let confirmed = "";
let choose = () => {};

// take(label, isNew): called with what was chosen; may return a promise that is rejected with a Problem.
export function openClassBox(take) {
  choose = take;
  input.addEventListener("input", () => {
    confirmed = "";
    message.textContent = "";
    fill();
  });
  input.addEventListener("keydown", onKey);
  input.addEventListener("blur", () => setTimeout(close, 150));
  byId("class-form").addEventListener("submit", (event) => {
    event.preventDefault();
    submit();
  });
}

export const isTyping = () => document.activeElement === input && input.value !== "";
export const focusBox = () => input.focus();

function matches(text) {
  const wanted = text.trim().toLowerCase();
  if (!wanted) return [];
  const rank = (label) => {
    const name = label.toLowerCase();
    if (name === wanted) return 0;
    if (name.startsWith(wanted)) return 1;
    return name.split(/[\s_-]+/).some((word) => word.startsWith(wanted)) ? 2 : name.includes(wanted) ? 3 : 4;
  };
  const found = state.labels.map((label) => [rank(label), label]).filter(([place]) => place < 4);
  found.sort(([a], [b]) => a - b);
  const known = found.slice(0, MOST).map(([, label]) => ({ label, isNew: false }));
  const isNew = !state.closed && !found.some(([place]) => place === 0);
  return isNew ? [...known, { label: text.trim(), isNew: true }] : known;
}

function fill() {
  shown = matches(input.value);
  active = 0;
  list.replaceChildren(...shown.map(({ label, isNew }, index) => {
    const option = make("li", isNew ? "new" : "", isNew ? `New class: ${label}` : label);
    option.id = `match-${index}`;
    option.role = "option";
    option.onpointerdown = (event) => {
      event.preventDefault();
      active = index;
      submit();
    };
    return option;
  }));
  mark();
}

function mark() {
  list.hidden = shown.length === 0;
  input.setAttribute("aria-expanded", String(!list.hidden));
  [...list.children].forEach((option, index) => option.setAttribute("aria-selected", String(index === active)));
  if (shown.length) input.setAttribute("aria-activedescendant", `match-${active}`);
  else input.removeAttribute("aria-activedescendant");
  list.children[active]?.scrollIntoView({ block: "nearest" });
}

function close() {
  shown = [];
  list.replaceChildren();
  mark();
}

export function clearBox() {
  input.value = "";
  confirmed = "";
  close();
}

function onKey(event) {
  if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    if (!shown.length) return;
    event.preventDefault();
    active = (active + (event.key === "ArrowDown" ? 1 : shown.length - 1)) % shown.length;
    mark();
  } else if (event.key === "Escape") {
    event.preventDefault();
    event.stopPropagation();
    clearBox();
    message.textContent = "";
    byId("stage").focus({ preventScroll: true });
  }
}

async function submit() {
  if (!input.value.trim()) return;
  const { label, isNew } = shown[active] ?? { label: input.value.trim(), isNew: true };
  if (!isNew) {
    clearBox();
    message.textContent = "";
    choose(label, false);
    return;
  }
  try {
    await choose(label, confirmed === label);
    clearBox();
    message.textContent = "";
  } catch (problem) {
    if (problem.kind === "new-class") {
      confirmed = label;
      message.textContent = `There is no class “${label}” yet. Enter again adds it.`;
    } else if (problem.kind === "looks-alike") {
      [input.value] = problem.similar;
      fill();
      message.textContent = `${problem.message} Enter takes that one.`;
    } else {
      message.textContent = problem.message;
    }
  }
}
