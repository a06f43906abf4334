// Pictures that the service would not take as they are: too large, in bytes or pixels, or of another format. They are decoded by the browser
// and sent as PNG or JPEG, with more pixels than the model looks at.

// First bytes of formats, by the service's names for them.
const SIGNATURES = [
  ["jpeg", 0, "\xff\xd8\xff"], ["png", 0, "\x89PNG"], ["gif", 0, "GIF8"], ["bmp", 0, "BM"], ["webp", 8, "WEBP"],
  ["tiff", 0, "II*\0"], ["tiff", 0, "MM\0*"], ["avif", 8, "avif"], ["heic", 8, "heic"], ["heic", 8, "heix"],
  ["heic", 8, "mif1"], ["jp2", 4, "jP  "],
];

// Shorter side of what is sent, in multiples of the pixels that the model needs, and the quality of the JPEG. The first
// that is small enough is sent. Four times as many pixels leave the service's own scaling its work.
const ATTEMPTS = [[4, 0.95], [4, 0.85], [2, 0.9], [2, 0.8], [1, 0.8]];
const LOSSLESS_PX = 512 * 512; // small pictures are sent without loss where that fits

const canvases = ["jpeg", "png", "webp"]; // what a canvas can be saved as

// The file itself, or a Blob that is sent in its place. What the browser cannot decode stays as it is: the service says
// what it is.
export async function prepared(file, limits) {
  const { formats, maxBytes, maxPixels, isFullRange } = limits;
  const possible = formats.filter((each) => canvases.includes(each));
  if (possible.length === 0) return file; // the model has not been described yet, or nothing could be sent instead
  const head = await beginningOf(file);
  const isTaken = formats.includes(formatOf(head));
  if (isTaken && file.size <= maxBytes && (await pixelsOf(file)) <= maxPixels) return file;
  // A canvas keeps 8 bits of 16: with white at 4,095 these are nearly black, and the service could not know.
  if (head.startsWith("\x89PNG") && head.charCodeAt(24) === 16 && !isFullRange) return file;
  let picture;
  try {
    // The pixels as they are stored: the service also ignores colour profiles.
    picture = await createImageBitmap(file, { imageOrientation: "from-image", colorSpaceConversion: "none" });
  } catch {
    return file;
  }
  try {
    return (await smaller(picture, possible, limits)) ?? file;
  } catch { // longer than a canvas may be
    return file;
  } finally {
    picture.close();
  }
}

const beginningOf = async (file) => String.fromCharCode(...new Uint8Array(await file.slice(0, 32).arrayBuffer()));

const formatOf = (head) => SIGNATURES.find(([, at, bytes]) => head.startsWith(bytes, at))?.[0];

// Number of pixels, without decoding them; 0 for what the browser cannot show.
async function pixelsOf(file) {
  const image = new Image();
  image.src = URL.createObjectURL(file);
  await new Promise((done) => { image.onload = image.onerror = done; });
  URL.revokeObjectURL(image.src);
  return image.naturalWidth * image.naturalHeight;
}

async function smaller(picture, possible, { maxBytes, maxPixels, shortestPx }) {
  const most = Math.sqrt(maxPixels / (picture.width * picture.height)); // largest scale that the service takes
  const largest = most < 1 ? 0.99 * most : 1;
  const lossless = possible.includes("png") && picture.width * picture.height <= LOSSLESS_PX;
  if (largest === 1 && (lossless || possible[0] === "png")) {
    const found = await saved(drawn(picture, 1), "png");
    if (found && found.size <= maxBytes) return found;
  }
  const format = possible.includes("jpeg") ? "jpeg" : possible[0];
  for (const [times, quality] of ATTEMPTS) {
    const scale = Math.min(largest, (times * Math.max(128, shortestPx)) / Math.min(picture.width, picture.height));
    const found = await saved(drawn(picture, scale), format, quality);
    if (found && found.size <= maxBytes) return found;
  }
  return null;
}

// The picture on white, scaled down by halves first: one large step would skip pixels.
function drawn(picture, scale) {
  let [source, width, height] = [picture, picture.width, picture.height];
  const [goalWidth, goalHeight] = [width, height].map((side) => Math.max(1, Math.round(side * scale)));
  do {
    width = Math.max(goalWidth, Math.ceil(width / 2));
    height = Math.max(goalHeight, Math.ceil(height / 2));
    if (scale === 1) [width, height] = [goalWidth, goalHeight];
    const canvas = new OffscreenCanvas(width, height);
    const context = canvas.getContext("2d");
    context.imageSmoothingQuality = "high";
    context.fillStyle = "white";
    context.fillRect(0, 0, width, height);
    context.drawImage(source, 0, 0, width, height);
    source = canvas;
  } while (width > goalWidth || height > goalHeight);
  return source;
}

const saved = (canvas, format, quality) => canvas.convertToBlob({ type: `image/${format}`, quality });
