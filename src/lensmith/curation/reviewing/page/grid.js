// Many pictures at once, a page at a time, so that ten thousand cost no more than a hundred.

import { byId, make } from "./dom.js";
import { pictureUrl } from "./server.js";
import { isContested, labelOf, mineOn, state, statusOf, suggestionFor } from "./state.js";
import { fileName, markTiny, number, percent } from "./text.js";

export const PAGE = 60;
const THUMB_PX = 240;

const tiles = byId("tiles");
const selected = new Set(); // positions
let first = -1;
let drawn = []; // positions on the page
let isSelecting = false;

// open and focused: called with the position of the picture to open, and of the one that has the focus.
export function openGrid(open, focused) {
  tiles.addEventListener("focusin", ({ target }) => {
    for (const item of tiles.children) item.firstChild.tabIndex = item.firstChild === target ? 0 : -1;
    focused(Number(target.dataset.position));
  });
  tiles.addEventListener("click", (event) => {
    const tile = event.target.closest(".tile");
    if (!tile) return;
    const position = Number(tile.dataset.position);
    if (event.shiftKey || event.ctrlKey || event.metaKey || isSelecting) toggle(position);
    else open(position);
  });
  byId("select-all").onclick = selectAll;
  byId("selecting").onclick = () => {
    isSelecting = !isSelecting;
    byId("selecting").setAttribute("aria-pressed", String(isSelecting));
  };
}

export function showGrid(queue, index) {
  const start = Math.floor(index / PAGE) * PAGE;
  const wanted = queue.slice(start, start + PAGE);
  if (start !== first || wanted.some((position, place) => position !== drawn[place]) || wanted.length !== drawn.length) {
    first = start;
    drawn = wanted;
    selected.clear();
    tiles.replaceChildren(...wanted.map(tileOf));
  }
  for (const item of tiles.children) fill(item.firstChild);
  const end = Math.min(start + PAGE, queue.length);
  byId("grid-count").textContent = queue.length
    ? `${number(start + 1)}–${number(end)} of ${number(queue.length)}${selected.size ? `, ${selected.size} selected` : ""}`
    : "No picture";
  byId("page-before").disabled = start === 0;
  byId("page-after").disabled = end >= queue.length;
  const current = tiles.children[index - start]?.firstChild;
  for (const item of tiles.children) item.firstChild.tabIndex = item.firstChild === current ? 0 : -1;
}

export function focusTile(queue, index) {
  tiles.children[index % PAGE]?.firstChild.focus();
}

// Number of tiles in a row, for the arrows up and down.
export function columns() {
  const [one, ...others] = tiles.children;
  if (!one) return 1;
  const row = others.findIndex((item) => item.offsetTop !== one.offsetTop);
  return row < 0 ? others.length + 1 : row + 1;
}

// Pictures that a decision is about: those that are selected, or else the one at hand.
export const chosen = (position) => (selected.size ? [...selected] : [position]);
export const hasSelection = () => selected.size > 0;

export function toggle(position) {
  if (!selected.delete(position)) selected.add(position);
  refresh();
}

export function selectAll() {
  const all = drawn.every((position) => selected.has(position));
  selected.clear();
  if (!all) for (const position of drawn) selected.add(position);
  refresh();
}

export function clearSelection() {
  selected.clear();
  refresh();
}

function refresh() {
  for (const item of tiles.children) fill(item.firstChild);
  const text = byId("grid-count").textContent.replace(/, [\d,]+ selected$/, "");
  byId("grid-count").textContent = selected.size ? `${text}, ${selected.size} selected` : text;
}

function tileOf(position) {
  const tile = make("button", "tile");
  tile.type = "button";
  tile.dataset.position = position;
  tile.title = state.paths[position];
  const frame = make("span", "frame");
  const picture = make("img");
  picture.alt = "";
  picture.loading = "lazy";
  picture.decoding = "async";
  picture.onload = () => markTiny(picture);
  picture.onerror = () => frame.classList.add("blank");
  picture.src = pictureUrl(position, THUMB_PX);
  frame.append(picture);
  tile.append(frame, make("span", "tile-label"), make("span", "tile-share"));
  const item = make("li");
  item.append(tile);
  return item;
}

const WORDS = { open: "", kept: "kept", changed: "changed", excluded: "left out", skipped: "skipped" };

function fill(tile) {
  const position = Number(tile.dataset.position);
  const [, label, share] = tile.children;
  const status = statusOf(position);
  const suggestion = suggestionFor(position);
  const mark = { excluded: "left out", skipped: "skipped" }[status];
  tile.dataset.status = status;
  tile.setAttribute("aria-pressed", String(selected.has(position)));
  const own = mineOn(position) || status === "open" ? labelOf(position) || "no label" : "decided by another";
  label.textContent = mark && mineOn(position) ? mark : own;
  const differs = suggestion && suggestion[0] !== labelOf(position);
  share.textContent = differs ? `${suggestion[0]}? ${suggestion[1] === null ? "" : percent(suggestion[1])}` : "";
  share.classList.toggle("differs", Boolean(differs));
  const words = [label.textContent, differs ? `suggestion ${share.textContent.replace("?", "")}` : "", WORDS[status],
    isContested(position) && mineOn(position) ? "reviewers disagree" : "", fileName(state.paths[position])];
  tile.setAttribute("aria-label", words.filter(Boolean).join(", "));
}
