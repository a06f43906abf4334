// The web page: the served model, and the parts of the page put together.

import { accepted, guard, refused } from "./access.js";
import { again, classify, limits } from "./classify.js";
import { byId, make } from "./dom.js";
import { bytes } from "./format.js";
import { watch } from "./live.js";
import { takePictures } from "./picture.js";
import { watchRollout } from "./rollout.js";
import { ask, Problem, token } from "./service.js";
import { offerLabels } from "./verdict.js";

const NAMED = 6; // classes that the lead names

async function showModel() {
  const key = token.get() ? ' -H "Authorization: Bearer $TOKEN"' : "";
  byId("command").textContent = `curl${key} --data-binary @photo.jpg ${new URL("predict", document.baseURI)}`;
  try {
    const model = await ask("model", "json");
    accepted();
    describe(model);
    return true;
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
    refused(problem);
    return false;
  }
}

function describe(model) {
  limits.threshold = model.abstention?.threshold ?? null;
  limits.formats = model.formats;
  limits.maxBytes = model.max_bytes;
  limits.maxPixels = model.max_pixels;
  limits.isFullRange = String(model.value_ranges.uint16) === "0,65535"; // of 16-bit pictures
  limits.shortestPx = model.shortest_px;
  limits.maxImages = model.max_images;
  offerLabels(model.labels);
  byId("model").replaceChildren(
    make("strong", "", model.name), ` version ${model.version} · ${model.engine} ${model.precision}`);
  const named = model.labels.slice(0, NAMED).join(", ");
  const all = model.labels.length <= NAMED;
  const classes = all ? named : `${model.labels.length.toLocaleString("en")} classes, among them ${named}`;
  byId("lead").textContent = `This model tells apart ${classes}.`;
  const hint = byId("limits"); // gone once a picture is there
  if (hint) hint.textContent = `Large pictures and other formats are sent as JPEG, at most ${bytes(model.max_bytes)}; several at once if you like`;
}

guard(async () => {
  if (!(await showModel())) return;
  again();
  watchRollout();
});
takePictures(classify);
watch(showModel);
watchRollout();
showModel();
