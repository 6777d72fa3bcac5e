// A map over its photo, in the library's usual look: smoothed, red for and blue against, striped where against.

import { resampled } from "./resample.js";

const SMOOTHING = 0.01; // sigma, as a share of the map's longer side
const PERCENTILE = 0.995; // of |relevance|, from which colours are full
const POWER = 0.7; // how the opacity grows with the strength
const STRIPED = 0.12; // of full colour; weaker relevance against the class is too pale for stripes
const THINNED = 0.35; // of the opacity, between the stripes
const DARKEST = 0.3; // of the photo's greys
const GROUND = 0.65; // of the colour bar: the middle of these greys
const DIMMED = 0.4; // what the model did not see of the photo, under the map
const CUT = 0.55; // likewise in the photo itself
const LEAST = 448; // pixels of the longer side that is drawn
const MOST = 1024;

/** What is drawn of a heatmap, { values, width, height, full, odd }: smoothed, in units of the limit, -1 to 1.
 *
 * full: the share of the peak from which colours are full; odd: what is odd about the map, or nothing. */
export function drawable(heatmap, width, height) {
  const values = smoothed(Float64Array.from(heatmap), width, height);
  const sizes = values.map(Math.abs).sort();
  const peak = sizes[sizes.length - 1];
  if (!(peak > 0)) return { values, width, height, full: null, odd: "All relevance is zero." };
  const limit = percentile(sizes, PERCENTILE) || peak;
  const strength = values.map((value) => Math.max(-1, Math.min(1, value / limit)));
  return { values: strength, width, height, full: limit / peak, odd: "" };
}

/** Under a Gaussian, mirrored at the border. */
function smoothed(values, width, height) {
  const sigma = SMOOTHING * Math.max(width, height);
  const radius = Math.ceil(4 * sigma);
  const kernel = Array.from({ length: 2 * radius + 1 }, (_, k) => Math.exp(-0.5 * ((k - radius) / sigma) ** 2));
  const sum = kernel.reduce((one, other) => one + other, 0);
  const rows = convolved(values, kernel, sum, height, width, width, 1);
  return convolved(rows, kernel, sum, width, height, 1, width);
}

/** Lines of so many values, `next` apart, each line `apart` from the one before it. */
function convolved(values, kernel, sum, lines, length, apart, next) {
  const radius = (kernel.length - 1) / 2;
  const made = new Float64Array(values.length);
  for (let line = 0; line < lines; line++) {
    for (let place = 0; place < length; place++) {
      let total = 0;
      for (let k = 0; k < kernel.length; k++) {
        total += kernel[k] * values[line * apart + mirrored(place + k - radius, length) * next];
      }
      made[line * apart + place * next] = total / sum;
    }
  }
  return made;
}

function mirrored(place, length) {
  const within = ((place % (2 * length)) + 2 * length) % (2 * length);
  return within < length ? within : 2 * length - 1 - within;
}

/** Of sorted numbers, linear between neighbours. */
function percentile(sorted, share) {
  const place = share * (sorted.length - 1);
  const below = Math.floor(place);
  const above = Math.min(below + 1, sorted.length - 1);
  return sorted[below] + (place - below) * (sorted[above] - sorted[below]);
}

/** The photo on a canvas, in the size in which it is drawn. */
function drawn(canvas, bitmap) {
  const longer = Math.max(bitmap.width, bitmap.height);
  const factor = Math.min(Math.max(longer, LEAST), MOST) / longer;
  canvas.width = Math.max(1, Math.round(factor * bitmap.width));
  canvas.height = Math.max(1, Math.round(factor * bitmap.height));
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return context;
}

/** The photo, with what the model did not see dimmed. */
export function drawPhoto(canvas, bitmap, window) {
  frame(drawn(canvas, bitmap), edgesOf(canvas, window), CUT);
}

/** The map over the photo, where the model saw it. colours: 511 from the strength -1 to 1, in 0 to 1. */
export function drawMap(canvas, bitmap, window, map, colours) {
  const context = drawn(canvas, bitmap);
  const { width, height } = canvas;
  const edges = edgesOf(canvas, window);
  const [left, top, right, bottom] = edges;
  const form = { width: map.width, height: map.height, channels: 1 };
  const strength = resampled(map.values, form, [right - left, bottom - top], "bilinear");
  const picture = context.getImageData(0, 0, width, height);
  const period = stripePeriod(width, height);
  for (let y = 0, at = 0; y < height; y++) {
    for (let x = 0; x < width; x++, at += 4) {
      const inside = x >= left && x < right && y >= top && y < bottom;
      const value = inside ? strength[(y - top) * (right - left) + x - left] : 0;
      paint(picture.data, at, value, ground(picture.data, at), colours, (x + y) % period < 0.45 * period);
    }
  }
  context.putImageData(picture, 0, 0);
  frame(context, edges, DIMMED);
}

/** The colours from the negative peak to the positive one. */
export function drawBar(canvas, full, colours) {
  const context = canvas.getContext("2d");
  const picture = context.createImageData(canvas.width, 1);
  for (let x = 0; x < canvas.width; x++) {
    const place = (2 * x) / (canvas.width - 1) - 1;
    paint(picture.data, 4 * x, Math.max(-1, Math.min(1, place / full)), GROUND, colours, false);
  }
  context.putImageData(picture, 0, 0);
}

/** The photo's grey, pale, without a colour that could be taken for relevance (weights of ITU-R BT.601). */
const ground = (data, at) =>
  DARKEST + ((1 - DARKEST) / 255) * (0.299 * data[at] + 0.587 * data[at + 1] + 0.114 * data[at + 2]);

/** One pixel: the stronger, the more of the ground is hidden. */
function paint(data, at, strength, grey, colours, thin) {
  const share = Math.abs(strength) ** POWER * (thin && strength < -STRIPED ? THINNED : 1);
  const colour = colours[Math.round(((strength + 1) * (colours.length - 1)) / 2)];
  for (let k = 0; k < 3; k++) data[at + k] = 255 * (share * colour[k] + (1 - share) * grey);
  data[at + 3] = 255;
}

const stripePeriod = (width, height) => Math.max(4, Math.round(Math.max(width, height) / 60));

const edgesOf = ({ width, height }, window) =>
  window.map((edge, k) => Math.round(edge * (k % 2 ? height : width)));

/** Dim what the model did not see, and draw a white line around what it saw. */
function frame(context, [left, top, right, bottom], dimmed) {
  const { width, height } = context.canvas;
  if (left <= 0 && top <= 0 && right >= width && bottom >= height) return;
  context.fillStyle = `rgb(0 0 0 / ${1 - dimmed})`;
  context.fillRect(0, 0, width, top);
  context.fillRect(0, bottom, width, height - bottom);
  context.fillRect(0, Math.max(top, 0), left, Math.min(bottom, height) - Math.max(top, 0));
  context.fillRect(right, Math.max(top, 0), width - right, Math.min(bottom, height) - Math.max(top, 0));
  const line = Math.max(1, Math.round(Math.max(width, height) / 400));
  const [x, y] = [Math.max(left, 0) + line / 2, Math.max(top, 0) + line / 2];
  context.strokeStyle = "white";
  context.lineWidth = line;
  context.strokeRect(x, y, Math.min(right, width) - line / 2 - x, Math.min(bottom, height) - line / 2 - y);
}
