// Text: numbers and names for people, and what screen readers read.

import { byId } from "./dom.js";

const SPACE = "\u202f"; // narrow no-break space
export const percent = (share) => `${(100 * share).toFixed(share > 0.0995 ? 0 : 1)}${SPACE}%`;
export const number = (count) => count.toLocaleString("en");
export const fileName = (path) => path.slice(path.lastIndexOf("/") + 1);

// A picture of a few pixels would be a dot, or a blur.
export const markTiny = (image) =>
  image.classList.toggle("tiny", Math.max(image.naturalWidth, image.naturalHeight) < 160);

const live = byId("live");
let turn = false;
// Text for screen readers; the same text twice is read twice.
export function announce(text) {
  turn = !turn;
  live.textContent = turn ? text : `${text}\u00a0`;
}
