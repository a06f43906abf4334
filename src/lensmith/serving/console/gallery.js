// Several pictures at once: each with its label and confidence, or its problem, in its place.

import { byId, make } from "./dom.js";
import { counted, percent } from "./format.js";

const gallery = byId("gallery");
const pictures = byId("pictures");

// items: { file, url, found, problem }. select: called with the number of the one that was clicked.
export function showGallery(items, select) {
  gallery.hidden = items.length < 2;
  pictures.replaceChildren(...(gallery.hidden ? [] : items.map((item, index) => place(item, () => select(index)))));
  if (!gallery.hidden) updateGallery(items);
}

export function updateGallery(items) {
  if (gallery.hidden) return;
  items.forEach((item, index) => fill(pictures.children[index].firstChild, item));
  const answered = items.filter(({ found }) => found).length;
  const failed = items.filter(({ problem }) => problem).length;
  byId("gallery-title").textContent = counted(items.length, "picture");
  const done = `${answered} answered${failed ? `, ${failed} not` : ""}`;
  byId("gallery-count").textContent = answered + failed < items.length ? "under way" : done;
}

export function markSelected(selected) {
  [...pictures.children].forEach((each, index) => {
    if (index === selected) each.firstChild.setAttribute("aria-current", "true");
    else each.firstChild.removeAttribute("aria-current");
  });
}

function place({ file, url }, onclick) {
  const button = make("button", "thumb");
  button.type = "button";
  button.title = file.name;
  button.onclick = onclick;
  const frame = make("span", "frame");
  const image = make("img");
  image.alt = "";
  image.loading = "lazy";
  image.onload = () => image.classList.toggle("tiny", Math.max(image.naturalWidth, image.naturalHeight) < 128);
  image.onerror = () => frame.classList.add("blank"); // the browser cannot show it either
  image.src = url;
  frame.append(image);
  button.append(frame, make("span", "thumb-label"), make("span", "thumb-share"));
  const element = make("li");
  element.append(button);
  return element;
}

function fill(button, { file, found, problem }) {
  const [, label, share] = button.children;
  const answered = found?.abstained ? "unsure" : "found";
  button.dataset.state = problem ? "failed" : found ? answered : "waiting";
  // A problem that all of them share is shown once, beside the picture.
  label.textContent = problem ? (problem.passing ? "Not answered" : problem.title) : found?.label ?? "…";
  share.textContent = found ? `${percent(found.confidence)}${found.abstained ? " · not sure" : ""}` : "";
  const name = [label.textContent, share.textContent, file.name].filter(Boolean);
  button.setAttribute("aria-label", name.join(", "));
}
