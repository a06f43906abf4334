// The review page: which pictures are shown, keys, and the parts of the page put together.

import { clearBox, focusBox, isTyping, openClassBox } from "./class_box.js";
import { decide, decideWithClass, openOutbox, undo, waiting } from "./decide.js";
import { byId, make } from "./dom.js";
import * as grid from "./grid.js";
import { drawClasses, drawDone, drawProgress } from "./overview.js";
import { store, stored } from "./remembered.js";
import { addressPictures, ask } from "./server.js";
import { isZoomed, setZoom, showSingle, toggleZoom, zoomIn, zoomOut } from "./single.js";
import { load, merge, mineOn, positions, state, suggestionFor } from "./state.js";
import { announce, fileName, number, percent } from "./text.js";

const POLL_MS = 2000;
const stage = byId("stage");

let queue = [];
let index = 0;
let view = "single";

const position = () => queue[index];
const filter = () => byId("filter").value;

async function begin() {
  load(await ask("api/review"));
  addressPictures(state);
  const name = state.named_by_flag ? state.reviewer : stored("name") || state.reviewer;
  state.reviewer = name;
  byId("reviewer").value = name;
  byId("source").replaceChildren(make("strong", "", fileName(state.source)), ` · ${state.title}${state.bundle ? ` · ${state.bundle}` : ""}`);
  openOutbox(`${state.source} ${state.out}`, draw);
  if (state.notes.length) showNotice(state.notes.join(" "));
  byId("saved").textContent = `Every decision is saved at once in ${state.journal}`;
  requeue();
  if (!name) askName();
  setInterval(poll, POLL_MS);
  poll();
}

function showNotice(text) {
  byId("notice").textContent = text;
  byId("notice").hidden = false;
}

async function poll() {
  if (document.hidden && !waiting()) return;
  try {
    const looking = position() === undefined ? "" : `&looking=${position()}`;
    const changes = await ask(`api/changes?seen=${state.seen}&answered=${state.answered}${looking}`);
    if (changes.of !== state.of) { // the review was started again, on other pictures
      if (!waiting()) location.reload();
      return;
    }
    const isNew = changes.seen !== state.seen || changes.answered !== state.answered;
    merge(changes);
    if (isNew) draw();
  } catch { /* the outbox reports it, as soon as there is something to lose */ }
}

// Take the pictures of the filter anew; `keep` stays the current one where it is among them.
function requeue(keep = position()) {
  queue = positions(filter(), byId("of-class").value);
  const place = queue.indexOf(keep);
  index = Math.max(0, place);
  draw();
}

function draw() {
  const isEmpty = queue.length === 0;
  byId("single").hidden = view !== "single" || isEmpty;
  byId("grid").hidden = view !== "grid" || isEmpty;
  byId("choices").hidden = isEmpty;
  byId("done").hidden = !isEmpty;
  byId("view-single").setAttribute("aria-pressed", String(view === "single"));
  byId("view-grid").setAttribute("aria-pressed", String(view === "grid"));
  drawClasses(view === "single" && !isEmpty ? mineOn(position())?.[3] ?? "" : "", chooseLabel);
  drawProgress();
  if (isEmpty) drawDone();
  else if (view === "single") showSingle(queue, index);
  else grid.showGrid(queue, index);
}

// After a decision: the next picture, and its description for screen readers.
function advance(what) {
  clearBox();
  byId("message").textContent = "";
  if (view === "grid") {
    grid.clearSelection();
    announce(what);
    draw();
    return;
  }
  if (index < queue.length - 1) {
    index += 1;
    draw();
    announce(`${what}. ${described()}`);
  } else {
    const before = queue.length;
    requeue();
    announce(queue.length === 0 || (before && filter() === "all") ? `${what}. That was the last picture.` : `${what}. ${described()}`);
  }
  stage.focus({ preventScroll: true });
}

function described() {
  const suggestion = suggestionFor(position());
  const share = suggestion?.[1] === null || suggestion === null ? "" : ` ${percent(suggestion[1])}`;
  return [`Picture ${number(index + 1)} of ${number(queue.length)}, ${fileName(state.paths[position()])}`,
    state.own[position()] ? `labelled ${state.own[position()]}` : "no label",
    suggestion ? `suggestion ${suggestion[0]}${share}` : ""].filter(Boolean).join(", ");
}

function targets() {
  return view === "grid" ? grid.chosen(position()) : [position()];
}

function chooseLabel(label) {
  if (!ready()) return;
  decide(targets(), "label", label).catch(() => {});
  advance(label);
}

function act(action, word) {
  if (!ready()) return;
  decide(targets(), action).catch(() => {});
  advance(word);
}

function keep() {
  if (view === "single" && state.own[position()]) chooseLabel(state.own[position()]);
}

function take() {
  const suggestion = suggestionFor(position());
  if (view === "single" && suggestion) chooseSuggestion(suggestion[0]);
}

function chooseSuggestion(label) {
  if (state.labels.includes(label)) chooseLabel(label);
  else byName(label, !state.closed).catch((problem) => { byId("message").textContent = problem.message; });
}

async function byName(label, isNew) {
  if (!ready()) return;
  if (state.labels.includes(label)) {
    chooseLabel(label);
    return;
  }
  advance(await decideWithClass(targets(), label, isNew));
}

function ready() {
  if (state.reviewer) return position() !== undefined;
  askName();
  return false;
}

function askName() {
  byId("message").textContent = "Who are you? Write your name at the top, so that your decisions can be told from others’.";
  byId("reviewer").focus();
}

function takeBack() {
  const where = undo(position() ?? -1);
  if (where === null) {
    byId("message").textContent = "There is nothing to undo.";
    return;
  }
  if (!queue.includes(where)) queue.splice(index, 0, where);
  index = queue.indexOf(where);
  draw();
  announce(`Taken back. ${described()}`);
}

function step(by) {
  const wanted = index + by;
  if (wanted < 0 || wanted >= queue.length) return;
  index = wanted;
  draw();
  if (view === "grid") grid.focusTile(queue, index);
  else announce(described());
}

function turn(by) {
  index = Math.max(0, Math.min(queue.length - 1, (Math.floor(index / grid.PAGE) + by) * grid.PAGE));
  draw();
  grid.focusTile(queue, index);
}

function show(wanted) {
  if (view === wanted) return;
  view = wanted;
  draw();
  if (view === "grid") grid.focusTile(queue, index);
  else stage.focus({ preventScroll: true });
}

const KEYS = {
  ".": () => act("skip", "Skipped"),
  Delete: () => act("exclude", "Left out"),
  Backspace: takeBack,
  PageUp: () => view === "grid" && turn(-1),
  PageDown: () => view === "grid" && turn(1),
  "+": () => view === "single" && zoomIn(),
  "=": () => view === "single" && zoomIn(),
  "-": () => view === "single" && zoomOut(),
  Escape: escape,
};

function escape() {
  if (isZoomed()) setZoom(0);
  else if (view === "grid" && grid.hasSelection()) grid.clearSelection();
  else show(view === "single" ? "grid" : "single");
}

function arrows(key) {
  if (view === "single") {
    if (isZoomed()) return false; // the browser scrolls the picture
    if (key === "ArrowLeft" || key === "ArrowRight") step(key === "ArrowRight" ? 1 : -1);
    return key === "ArrowLeft" || key === "ArrowRight";
  }
  step({ ArrowLeft: -1, ArrowRight: 1, ArrowUp: -grid.columns(), ArrowDown: grid.columns() }[key]);
  return true;
}

document.addEventListener("keydown", (event) => {
  const { key, target } = event;
  if ((event.ctrlKey || event.metaKey) && !event.altKey) {
    if (key === "z" && !target.matches("input")) { event.preventDefault(); takeBack(); }
    if (key === "a" && view === "grid" && !target.matches("input")) { event.preventDefault(); grid.selectAll(); }
    return;
  }
  if (event.altKey || event.ctrlKey || event.metaKey) return;
  const isBox = target.id === "class-name";
  if (target.matches("select, summary") || (target.matches("input") && !(isBox && !isTyping()))) return;
  if (!byId("shortcuts").checked && !isBox) return;
  if (handle(key, target)) event.preventDefault();
});

// Whether the key was a shortcut.
function handle(key, target) {
  if (/^[0-9]$/.test(key)) {
    const label = state.labels[(Number(key) + 9) % 10];
    if (label !== undefined) chooseLabel(label);
    return true;
  }
  if (Object.hasOwn(KEYS, key)) {
    KEYS[key]();
    return true;
  }
  if (key.startsWith("Arrow")) return queue.length > 0 && arrows(key);
  const isTile = target.matches(".tile");
  if (isTile && key === " ") {
    grid.toggle(Number(target.dataset.position));
    return true;
  }
  if (target.matches("button, a")) return key.length === 1 && key !== " " && focusByLetter(key);
  if (key === "Enter") {
    keep();
    return true;
  }
  if (key === " ") {
    take();
    return true;
  }
  return key.length === 1 && focusByLetter(key);
}

// A letter begins a class's name: it goes where the focus is once the event is through.
function focusByLetter(key) {
  if (/\p{L}/u.test(key) && queue.length) focusBox();
  return false;
}

byId("filter").onchange = () => requeue();
byId("of-class").onchange = () => requeue();
byId("view-single").onclick = () => show("single");
byId("view-grid").onclick = () => show("grid");
byId("previous").onclick = () => step(-1);
byId("next").onclick = () => step(1);
byId("page-before").onclick = () => turn(-1);
byId("page-after").onclick = () => turn(1);
byId("zoom").onclick = toggleZoom;
stage.ondblclick = toggleZoom;
byId("keep").onclick = keep;
byId("take").onclick = take;
byId("skip").onclick = () => act("skip", "Skipped");
byId("exclude").onclick = () => act("exclude", "Left out");
byId("undo").onclick = takeBack;
byId("reviewer-form").onsubmit = (event) => {
  event.preventDefault();
  stage.focus({ preventScroll: true });
};
byId("reviewer").onchange = ({ target }) => {
  state.reviewer = target.value.normalize("NFC").trim().replace(/\s+/g, " ");
  store("name", state.reviewer);
  byId("message").textContent = "";
  requeue();
};
byId("shortcuts").onchange = ({ target }) => store("shortcuts", target.checked ? "" : "off");
byId("shortcuts").checked = stored("shortcuts") !== "off";
openClassBox(byName);
grid.openGrid((wanted) => {
  index = queue.indexOf(wanted);
  show("single");
}, (wanted) => { index = Math.max(0, queue.indexOf(wanted)); });
addEventListener("beforeunload", (event) => { if (waiting()) event.preventDefault(); });

begin().catch((problem) => showNotice(`The review cannot be shown. ${problem.message}`));
