// The page: a picture goes to POST predict as it is, and what comes back is drawn. Addresses are relative, so the
// service may stand under any path behind a proxy.
"use strict";

const byId = (id) => document.getElementById(id);
const drop = byId("drop");
const input = byId("file");
const preview = byId("preview");
const answer = byId("answer");

let current = null; // the AbortController of the request under way
let threshold = null; // confidence from which on the model answers; null: from any

function make(tag, className, text = "") {
  const element = document.createElement(tag);
  element.className = className;
  element.textContent = text;
  return element;
}

function percent(share) {
  if (share > 0 && share < 0.001) return "< 0.1 %";
  return `${(100 * share).toFixed(1)} %`;
}

function milliseconds(ms) {
  return ms < 9.95 ? `${ms.toFixed(1)} ms` : `${Math.round(ms)} ms`;
}

function size(bytes) {
  return bytes < 1e6 ? `${Math.max(1, Math.round(bytes / 1e3))} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}

async function showModel() {
  byId("command").textContent = `curl --data-binary @photo.jpg ${new URL("predict", document.baseURI)}`;
  const response = await fetch("model");
  if (!response.ok) return;
  const model = await response.json();
  byId("model").replaceChildren(
    make("strong", "", model.name), ` version ${model.version} · ${model.engine} ${model.precision}`);
  threshold = model.abstention?.threshold ?? null;
  const shown = model.labels.slice(0, 6).join(", ");
  const classes = model.labels.length > 6 ? `${model.labels.length.toLocaleString("en")} classes, among them ${shown}` : shown;
  byId("lead").textContent = `This model tells apart ${classes}.`;
  byId("hint").textContent = `JPEG or PNG, at most ${size(model.max_bytes)}`;
}

function showPreview(file) {
  URL.revokeObjectURL(preview.src);
  preview.onload = () => {
    preview.classList.toggle("tiny", Math.max(preview.naturalWidth, preview.naturalHeight) < 128);
    preview.hidden = false;
    byId("invitation").hidden = true;
    drop.classList.add("filled");
  };
  preview.onerror = () => {
    preview.hidden = true;
    byId("invitation").hidden = false;
    drop.classList.remove("filled");
  };
  preview.alt = file.name;
  preview.src = URL.createObjectURL(file);
  byId("hint").textContent = `${file.name} · ${size(file.size)} · click, drop or paste for another`;
}

function show(state) {
  answer.dataset.state = state;
  answer.scrollIntoView({ block: "nearest" }); // on a narrow screen it stands below the picture
}

function showAnswer(found, roundTrip) {
  const guess = `${found.label}, ${percent(found.confidence)}`;
  byId("summary").textContent = found.abstained ? `Not sure enough to answer. Likeliest guess: ${guess}` : guess;
  answer.dataset.abstained = found.abstained;
  byId("unsure").hidden = !found.abstained;
  const from = threshold === null ? "" : ` This model answers from a confidence of ${percent(threshold)} on.`;
  byId("unsure-detail").textContent = `Its likeliest guess is ${found.label}.${from}`;
  byId("ranking").replaceChildren(...found.top.map((each) => {
    const row = make("li", "");
    const bar = make("span", "bar");
    const fill = make("span", "");
    bar.setAttribute("aria-hidden", "true");
    fill.style.width = `${100 * each.confidence}%`;
    bar.append(fill);
    row.append(make("span", "label", each.label), make("span", "share", percent(each.confidence)), bar);
    return row;
  }));
  if (found.abstained && threshold !== null) {
    const mark = make("i", "mark");
    mark.style.left = `${100 * threshold}%`;
    byId("ranking").querySelector(".bar").append(mark);
  }
  const { decode, inference, total } = found.timings_ms;
  const stages = [
    ["Inference", inference],
    ["Decoding", decode],
    ["Waiting", Math.max(0, total - decode - inference)],
    ["Network", Math.max(0, roundTrip - total)],
  ];
  byId("round-trip").textContent = milliseconds(roundTrip);
  byId("stages").replaceChildren(...stages.map(([, ms], index) => {
    const part = make("span", `stage-${index + 1}`);
    part.style.flexGrow = ms;
    return part;
  }));
  byId("legend").replaceChildren(...stages.map(([name, ms], index) => {
    const entry = make("div", `stage-${index + 1}`);
    entry.append(make("dt", "", name), make("dd", "", milliseconds(ms)));
    return entry;
  }));
  show("found");
}

function showFailure(title, detail, requestId) {
  byId("failed-title").textContent = title;
  byId("failed-detail").textContent = detail;
  byId("failed-reference").textContent = requestId ? `Request ${requestId}` : "";
  show("failed");
}

async function classify(file) {
  current?.abort();
  const controller = current = new AbortController();
  answer.dataset.state = "waiting";
  answer.setAttribute("aria-busy", "true");
  showPreview(file);
  try {
    const started = performance.now();
    const response = await fetch("predict?top_k=5", { method: "POST", body: file, signal: controller.signal });
    const body = await response.json();
    if (response.ok) showAnswer(body, performance.now() - started);
    else showFailure(body.title, body.detail, body.request_id);
  } catch (error) {
    if (controller.signal.aborted) return;
    showFailure("The service cannot be reached", "It may have been stopped. Start it again, then send the picture once more.");
  }
  answer.removeAttribute("aria-busy");
}

function take(files) {
  if (files.length) classify(files[0]);
}

input.addEventListener("change", () => {
  take([...input.files]);
  input.value = ""; // the same file may be chosen again
});

document.addEventListener("paste", (event) => take([...event.clipboardData.files]));

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
  take([...event.dataTransfer.files]);
});

showModel();
