// Classification of pictures: one by POST predict, several by POST predict/batch.

import { accepted, refused } from "./access.js";
import { showAnswer, showProblem, showWaiting } from "./answer.js";
import { byId } from "./dom.js";
import { bytes, counted } from "./format.js";
import { markSelected, showGallery, updateGallery } from "./gallery.js";
import { showPicture } from "./picture.js";
import { prepared } from "./prepare.js";
import { ask, described, Problem } from "./service.js";
import { askVerdict } from "./verdict.js";

const TOP_K = 5;

// Limits from GET model; these until it has answered.
export const limits = {
  threshold: null, formats: [], maxBytes: Infinity, maxPixels: Infinity, maxImages: 32, shortestPx: 256, isFullRange: true,
};

let items = []; // { file, sent, url, found, problem, times, requestId, place, trueLabel }
let selected = 0;
let current = null; // the AbortController of the requests under way

// Send files; requests under way are aborted.
export function classify(files) {
  for (const { url } of items) URL.revokeObjectURL(url);
  const empty = { sent: null, found: null, problem: null, times: null, requestId: "", place: 0, trueLabel: null };
  items = files.map((file) => ({ ...empty, file, url: URL.createObjectURL(file) }));
  showGallery(items, select);
  select(0);
  send();
}

// Send again what was not answered, and may be now.
export function again() {
  if (!items.some(({ problem }) => problem?.passing)) return;
  for (const item of items) if (item.problem?.passing) item.problem = null;
  updateGallery(items);
  showSelected();
  send();
}

function select(index) {
  selected = index;
  markSelected(index);
  showPicture(items[index]);
  showSelected();
}

function showSelected() {
  const { found, problem, times } = items[selected];
  if (problem) showProblem(problem, problem.passing ? again : null);
  else if (found) {
    showAnswer(found, times, limits.threshold);
    askVerdict(items[selected]);
  } else showWaiting();
}

async function send() {
  current?.abort();
  const { signal } = (current = new AbortController());
  const open = items.filter(({ found, problem }) => !found && !problem);
  try {
    while (open.length > 0) {
      let some = open.splice(0, items.length > 1 ? limits.maxImages : 1);
      for (const item of some) await prepare(item);
      if (signal.aborted) return;
      some = some.filter(({ problem }) => !problem);
      try {
        if (some.length === 0) continue;
        if (items.length > 1) await several(some, signal);
        else await one(some[0], signal);
        accepted();
      } catch (problem) {
        if (signal.aborted) return;
        if (!(problem instanceof Problem)) throw problem;
        // The rest would fail for the same reason.
        for (const item of [...some, ...open.splice(0)]) item.problem = problem;
        refused(problem);
      }
      updateGallery(items);
    }
  } finally {
    if (!signal.aborted) finish();
  }
}

function finish() {
  updateGallery(items);
  showSelected();
  byId("answer").scrollIntoView({ block: "nearest" }); // on a narrow screen it is below the picture
}

// The picture as it is sent, made once.
async function prepare(item) {
  const started = performance.now();
  item.sent ??= await prepared(item.file, limits);
  if (item.sent !== item.file) item.preparedMs ??= performance.now() - started;
  if (item.sent.size > limits.maxBytes) item.problem = tooLarge(item.file);
  if (item === items[selected]) showPicture(item);
}

async function one(item, signal) {
  const started = performance.now();
  const found = await ask(`predict?top_k=${TOP_K}`, "json", { method: "POST", body: item.sent, signal });
  const { queue, decode, inference } = found.timings_ms;
  const elsewhere = Math.max(0, performance.now() - started - queue - decode - inference);
  const stages = [["Inference", inference], ["Decoding", decode], ["Waiting", queue], ["Network", elsewhere]];
  if (item.preparedMs) stages.push(["Scaling down here", item.preparedMs]);
  Object.assign(item, { found, times: { title: "Time", stages }, requestId: found.request_id });
}

async function several(some, signal) {
  const form = new FormData();
  for (const { sent, file } of some) form.append("file", sent, file.name);
  const started = performance.now();
  const { results, total_ms: service, request_id: requestId } = await ask(
    `predict/batch?top_k=${TOP_K}`, "json", { method: "POST", body: form, signal });
  const elsewhere = Math.max(0, performance.now() - started - service);
  const stages = [["Service", service], ["Network", elsewhere]];
  const times = { title: `Time for ${counted(some.length, "picture")}`, stages };
  results.forEach((result, index) => {
    if (result.problem) some[index].problem = described(result.problem);
    else Object.assign(some[index], { found: result, times, requestId, place: index });
  });
}

function tooLarge({ size }) {
  const detail = `At most ${bytes(limits.maxBytes)} are taken here (--max-bytes). This one has ${bytes(size)}, and the `
    + "browser cannot scale it down: save it smaller.";
  return new Problem("The picture is too large", detail, { status: 413 });
}
