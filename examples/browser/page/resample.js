// Resampling of pictures as Pillow does it: an antialiased filter along each axis, the width first.

/** Reach of a filter in pixels of the smaller picture, and its weight at a distance. */
const FILTERS = {
  bilinear: { reach: 1, weight: (x) => Math.max(0, 1 - Math.abs(x)) },
  bicubic: { reach: 2, weight: (x) => cubic(Math.abs(x), -0.5) },
};

/** Between bytes, Pillow computes with weights of 22 bits behind the point. */
const BITS = 22;

/** The cubic convolution of Keys (1981, https://doi.org/10.1109/TASSP.1981.1163711). */
function cubic(x, a) {
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  if (x < 2) return ((a * x - 5 * a) * x + 8 * a) * x - 4 * a;
  return 0;
}

/**
 * A part of a picture in another size.
 *
 * values: rows of pixels, each of so many channels: bytes (clamped), whose result is rounded after each axis,
 * or floats. The result has their type. part: [left, top, right, bottom] in pixels of the new size.
 */
export function resampled(values, { width, height, channels }, [toWidth, toHeight], name, part) {
  const [left, top, right, bottom] = part ?? [0, 0, toWidth, toHeight];
  const bytes = values instanceof Uint8ClampedArray;
  const columns = windowsOf(width, toWidth, [left, right], FILTERS[name], bytes);
  const rows = windowsOf(height, toHeight, [top, bottom], FILTERS[name], bytes);
  const narrow = along(values, height, width, channels, columns);
  return along(narrow, 1, height, columns.length * channels, rows);
}

/** Resample the middle axis of (outer, from, inner), a new pixel for each window. */
function along(values, outer, from, inner, windows) {
  const bytes = values instanceof Uint8ClampedArray;
  const made = new values.constructor(outer * windows.length * inner);
  let place = 0;
  for (let row = 0; row < outer; row++) {
    for (const { first, weights } of windows) {
      const start = (row * from + first) * inner;
      for (let k = 0; k < inner; k++) {
        let sum = bytes ? 1 << (BITS - 1) : 0;
        for (let n = 0, at = start + k; n < weights.length; n++, at += inner) sum += weights[n] * values[at];
        made[place++] = bytes ? sum >> BITS : sum;
      }
    }
  }
  return made;
}

/** For each new pixel from begin to end, the first old one that counts, and the weights of it and those after it,
 * which sum to 1. */
function windowsOf(from, to, [begin, end], { reach, weight }, bytes) {
  const ratio = from / to;
  const stretch = Math.max(ratio, 1);
  return Array.from({ length: end - begin }, (_, k) => {
    const centre = (begin + k + 0.5) * ratio;
    const first = Math.max(0, Math.trunc(centre - reach * stretch + 0.5));
    const last = Math.min(from, Math.trunc(centre + reach * stretch + 0.5));
    const raw = Array.from({ length: last - first }, (_, n) => weight((first + n + 0.5 - centre) / stretch));
    const sum = raw.reduce((one, other) => one + other, 0);
    const scale = bytes ? 2 ** BITS : 1;
    const rounded = (value) => Math.sign(value) * Math.floor(Math.abs(value) + 0.5);
    const weights = raw.map((value) => (bytes ? rounded((scale * value) / sum) : value / sum));
    return { first, weights: bytes ? Int32Array.from(weights) : Float64Array.from(weights) };
  });
}
