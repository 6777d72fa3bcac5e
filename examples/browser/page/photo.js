// From a file to what the model gets: decoded, upright, on white, resized, the middle cut out, normalised.

import { resampled } from "./resample.js";

const MOST = 100; // million pixels
const BAND = 256; // rows that are read at once: some browsers have no canvas for a whole photo

/** The photo in a file, for drawing; an Error with a sentence for people if it is none. */
export async function decoded(file) {
  let bitmap;
  try {
    // The library reads the numbers that the file has, whatever colour profile it names.
    bitmap = await createImageBitmap(file, { colorSpaceConversion: "none" });
  } catch {
    throw new Error(`${file.name || "This"} is not a picture that this browser can read: choose a JPEG, PNG or WebP file.`);
  }
  const millions = (bitmap.width * bitmap.height) / 1e6;
  if (millions > MOST) {
    throw new Error(`The photo has ${Math.round(millions)} million pixels, expected at most ${MOST}: make it smaller.`);
  }
  return bitmap;
}

/** The colours of a photo: { pixels (clamped bytes), width, height, channels: 3 }. */
export function coloursOf(bitmap) {
  const { width, height } = bitmap;
  const pixels = new Uint8ClampedArray(3 * width * height);
  const canvas = Object.assign(document.createElement("canvas"), { width, height: Math.min(BAND, height) });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  let place = 0;
  for (let top = 0; top < height; top += BAND) {
    const rows = Math.min(BAND, height - top);
    context.fillStyle = "white";
    context.fillRect(0, 0, width, rows);
    context.drawImage(bitmap, 0, -top);
    const { data } = context.getImageData(0, 0, width, rows);
    for (let k = 0; k < data.length; k += 4) {
      pixels[place++] = data[k];
      pixels[place++] = data[k + 1];
      pixels[place++] = data[k + 2];
    }
  }
  return { pixels, width, height, channels: 3 };
}

/** Where the model looks: the photo's size after resizing, and [left, top] of what is cut out of it. */
export function framing({ width, height }, { resize, size: [rows, columns] }) {
  const short = Math.min(width, height);
  const resized = [width, height].map((side) => Math.floor((resize * side) / short));
  return { resized, corner: [toEven((resized[0] - columns) / 2), toEven((resized[1] - rows) / 2)] };
}

/** The part of the photo that the model sees, [left, top, right, bottom] in shares of its sides. */
export function windowOf(photo, preprocessing) {
  const { resized, corner } = framing(photo, preprocessing);
  const [rows, columns] = preprocessing.size;
  const far = [corner[0] + columns, corner[1] + rows];
  return [...corner, ...far].map((edge, k) => edge / resized[k % 2]);
}

/** What the model gets, (3, rows, columns), in single precision at each step as the library computes it. */
export function tensorOf(photo, preprocessing) {
  const { resized, corner } = framing(photo, preprocessing);
  const [rows, columns] = preprocessing.size;
  const [left, top] = corner.map((edge) => Math.max(0, edge));
  const [right, bottom] = [Math.min(resized[0], corner[0] + columns), Math.min(resized[1], corner[1] + rows)];
  const pixels = resampled(photo.pixels, photo, resized, preprocessing.interpolation, [left, top, right, bottom]);
  const [mean, std] = [preprocessing.mean, preprocessing.std].map((values) => Float32Array.from(values));
  const tensor = new Float32Array(3 * rows * columns);
  let place = 0;
  for (let channel = 0; channel < 3; channel++) {
    for (let row = 0; row < rows; row++) {
      for (let column = 0; column < columns; column++) {
        const [x, y] = [corner[0] + column, corner[1] + row];
        const inside = x >= left && y >= top && x < right && y < bottom;
        const level = inside ? pixels[3 * ((y - top) * (right - left) + x - left) + channel] : 0; // black beyond the photo
        tensor[place++] = Math.fround(Math.fround(level / 255) - mean[channel]) / std[channel];
      }
    }
  }
  return tensor;
}

/** The nearest whole number, of two the even one. */
function toEven(value) {
  const below = Math.floor(value);
  const rest = value - below;
  return rest > 0.5 || (rest === 0.5 && below % 2 !== 0) ? below + 1 : below;
}
