// One picture: shown large, with what is known about it.

import { byId, make } from "./dom.js";
import { ask, pictureUrl } from "./server.js";
import { decisionsOn, labelOf, latestOn, mineOn, state, suggestionFor } from "./state.js";
import { fileName, markTiny, number, percent } from "./text.js";

const SIDE_PX = 1280;
const ZOOMED_PX = 4096;
const AHEAD = 5;
const ZOOMS = [1, 2, 4];

const stage = byId("stage");
const ready = new Map(); // position → image that is loaded, or being so
let current = -1;
let zoom = 0;

// Draw a picture that was shown before only anew, if its position has not changed.
export function showSingle(queue, index) {
  const position = queue[index];
  if (position !== current) {
    current = position;
    setZoom(0);
    showPicture(position);
    prefetch(queue, index);
  }
  byId("where").textContent = `${number(index + 1)} of ${number(queue.length)}`;
  byId("path").textContent = state.paths[position];
  byId("path").title = state.paths[position];
  byId("previous").disabled = index === 0;
  byId("next").disabled = index === queue.length - 1;
  describe(position);
}

function image(position) {
  if (!ready.has(position)) {
    const made = new Image();
    made.src = pictureUrl(position, SIDE_PX);
    ready.set(position, made);
    if (ready.size > 3 * AHEAD) ready.delete(ready.keys().next().value);
  }
  return ready.get(position);
}

function showPicture(position) {
  const made = image(position);
  const blank = byId("blank");
  const picture = made.cloneNode();
  picture.id = "picture";
  picture.alt = `Picture ${fileName(state.paths[position])}`;
  picture.hidden = false;
  picture.onload = () => markTiny(picture);
  picture.onerror = async () => {
    picture.hidden = true;
    blank.textContent = await reason(position);
    blank.hidden = false;
    ready.delete(position);
  };
  blank.hidden = true;
  byId("picture").replaceWith(picture);
  if (picture.complete && picture.naturalWidth) markTiny(picture);
}

async function reason(position) {
  try {
    await ask(pictureUrl(position, SIDE_PX));
    return "The picture cannot be shown.";
  } catch (problem) {
    return problem.status ? `The picture cannot be shown. ${problem.message}` : "The review does not answer.";
  }
}

function prefetch(queue, index) {
  for (const position of queue.slice(index + 1, index + 1 + AHEAD)) image(position);
}

function describe(position) {
  const [, , action] = mineOn(position) ?? [];
  const rows = [];
  const own = state.own[position];
  const named = state.named[position];
  if (named) rows.push(["Labelled", named.map(([who, label]) => `${who || "somebody"}: ${label}`).join(", ")]);
  else rows.push(["Labelled", own || "not yet"]);
  if (mineOn(position)) {
    const text = { label: labelOf(position), exclude: "left out", skip: "skipped" }[action];
    rows.push(["You", text, "mine"]);
    // What others think is shown afterwards, so that each judges for themselves.
    for (const [, who, act, label] of decisionsOn(position)) {
      if (who !== state.reviewer) rows.push([who, { label, exclude: "left out", skip: "skipped" }[act]]);
    }
  } else if (latestOn(position)) {
    rows.push(["Decided", "by another reviewer; shown once you have decided"]);
  }
  const listed = state.suggested[position];
  // Beside a model's answers, or without a confidence to draw.
  if (listed && (state.bundle || listed[1] === null)) {
    rows.push(["Suggested", listed[1] === null ? listed[0] : `${listed[0]}, ${percent(listed[1])}`]);
  }
  if (state.reasons[position]) rows.push(["Why", state.reasons[position]]);
  if (state.scores[position] !== undefined) rows.push(["Score", state.scores[position].toFixed(3)]);
  byId("known").replaceChildren(...rows.map(([term, text, kind = ""]) => {
    const row = make("div", kind);
    row.append(make("dt", "", term), make("dd", "", text));
    return row;
  }));
  rank(state.bundle ? state.answers.get(position) : listed?.[1] === null || !listed ? [] : [listed]);
  offer(position);
}

function rank(top) {
  byId("ranking").hidden = !state.bundle && top.length === 0;
  const rows = top === undefined ? [["…", null]] : top.length ? top : [["no answer", null]];
  byId("ranking").replaceChildren(...rows.map(([label, share]) => {
    const row = make("li");
    row.append(make("span", "label", label), make("span", "share", share === null ? "" : percent(share)));
    if (share !== null) {
      const bar = make("span", "bar");
      const fill = make("span");
      fill.style.width = `${Math.max(1, 100 * share)}%`;
      bar.append(fill);
      row.append(bar);
    }
    return row;
  }));
}

function offer(position) {
  const keep = byId("keep");
  const take = byId("take");
  const own = state.own[position];
  const suggestion = suggestionFor(position);
  keep.hidden = !own;
  keep.replaceChildren(`Keep ${own} `, make("kbd", "", "Enter"));
  take.hidden = !suggestion || suggestion[0] === own;
  if (suggestion) take.replaceChildren(`Take ${suggestion[0]} `, make("kbd", "", "Space"));
}

export const isZoomed = () => zoom > 0;

export function setZoom(step) {
  zoom = Math.max(0, Math.min(step, ZOOMS.length - 1));
  stage.dataset.zoom = ZOOMS[zoom];
  stage.scrollTo((stage.scrollWidth - stage.clientWidth) / 2, (stage.scrollHeight - stage.clientHeight) / 2);
  byId("zoom").setAttribute("aria-pressed", String(zoom > 0));
  const picture = byId("picture");
  if (zoom > 0 && current >= 0 && !picture.src.endsWith(pictureUrl(current, ZOOMED_PX)) && picture.naturalWidth >= 1280 * 0.5) {
    const sharper = new Image();
    sharper.onload = () => { if (zoom > 0) byId("picture").src = sharper.src; };
    sharper.src = pictureUrl(current, ZOOMED_PX);
  }
}

export const zoomIn = () => setZoom(zoom + 1);
export const zoomOut = () => setZoom(zoom - 1);
export const toggleZoom = () => setZoom(zoom > 0 ? 0 : 1);
