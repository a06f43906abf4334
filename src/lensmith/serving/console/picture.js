// The drop zone: takes files that are dropped, pasted or chosen, and shows the picture that the answer is about.

import { byId } from "./dom.js";
import { bytes } from "./format.js";

const drop = byId("drop");
const input = byId("file");
const preview = byId("preview");

// take: called with the files.
export function takePictures(take) {
  const some = (files) => files.length > 0 && take([...files]);
  input.addEventListener("change", () => {
    some(input.files);
    input.value = ""; // the same file may be chosen again
  });
  document.addEventListener("paste", (event) => some(event.clipboardData.files));
  // The whole page takes a drop: a picture let go beside the box would otherwise replace the page.
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) drop.classList.remove("over");
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    const given = [...event.dataTransfer.items].filter(({ kind }) => kind === "file");
    const files = given.filter((item) => !item.webkitGetAsEntry()?.isDirectory).map((item) => item.getAsFile());
    if (files.length < given.length) byId("hint").textContent = "A folder cannot be taken: drop the pictures in it.";
    some(files);
  });
}

export function showPicture({ file, sent, url }) {
  preview.onload = () => {
    preview.classList.toggle("tiny", Math.max(preview.naturalWidth, preview.naturalHeight) < 128);
    shown(true);
  };
  preview.onerror = () => shown(false);
  preview.alt = file.name;
  preview.src = url;
  const made = sent && sent !== file ? `, sent as ${format(sent)} of ${bytes(sent.size)}` : "";
  byId("hint").textContent = `${file.name} · ${bytes(file.size)}${made} · click, drop or paste for another`;
}

const format = ({ type }) => type.replace("image/", "").toUpperCase();

function shown(picture) {
  preview.hidden = !picture;
  byId("another").hidden = !picture; // the input's name, with the picture's
  byId("invitation").hidden = picture;
  drop.classList.toggle("filled", picture);
}
