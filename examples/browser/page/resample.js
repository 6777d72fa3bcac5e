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
 * A picture in another size.
 *
 * values: rows of pixels, each of so many channels: bytes (clamped), whose result is rounded after each axis,
 * or floats. The result has their type.
 */
export function resampled(values, { width, height, channels }, [toWidth, toHeight], name) {
  const filter = FILTERS[name];
  const narrow = toWidth === width ? values : along(values, height, width, channels, toWidth, filter);
  return toHeight === height ? narrow : along(narrow, 1, height, toWidth * channels, toHeight, filter);
}

/** Resample the middle axis of (outer, from, inner) to (outer, to, inner). */
function along(values, outer, from, inner, to, filter) {
  const bytes = values instanceof Uint8ClampedArray;
  const made = new values.constructor(outer * to * inner);
  const windows = windowsOf(from, to, filter, bytes);
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

/** For each new pixel, the first old one that counts, and the weights of it and those after it, which sum to 1. */
function windowsOf(from, to, { reach, weight }, bytes) {
  const ratio = from / to;
  const stretch = Math.max(ratio, 1);
  return Array.from({ length: to }, (_, k) => {
    const centre = (k + 0.5) * ratio;
    const first = Math.max(0, Math.trunc(centre - reach * stretch + 0.5));
    const end = Math.min(from, Math.trunc(centre + reach * stretch + 0.5));
    const raw = Array.from({ length: end - first }, (_, n) => weight((first + n + 0.5 - centre) / stretch));
    const sum = raw.reduce((one, other) => one + other, 0);
    const scale = bytes ? 2 ** BITS : 1;
    const rounded = (value) => Math.sign(value) * Math.floor(Math.abs(value) + 0.5);
    const weights = raw.map((value) => (bytes ? rounded((scale * value) / sum) : value / sum));
    return { first, weights: bytes ? Int32Array.from(weights) : Float64Array.from(weights) };
  });
}
