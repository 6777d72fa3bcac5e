// The model at work, beside the page: prepares photos and runs the ONNX file.

import * as ort from "./runtime/ort.js";
import { tensorOf } from "./photo.js";

ort.env.wasm.wasmPaths = { wasm: new URL("runtime/ort.wasm", import.meta.url).href };
// In an isolated page, which keep.js makes of this one, it uses threads: half as many as there are cores, at most four.

let session;
let about;

const answers = {
  async load({ about: described, file, bytes }) {
    about = described;
    const model = await fetched(file, bytes);
    session = await ort.InferenceSession.create(model, { executionProviders: ["wasm"] });
  },

  prepare: async ({ photo }) => tensorOf(photo, about.preprocessing),

  /** { logits, heatmap, lost } of one image; rivals null: all others. */
  async explain({ tensor, target, rivals }) {
    const [channels, rows, columns] = about.input_shape;
    const feeds = {
      images: new ort.Tensor("float32", tensor, [1, channels, rows, columns]),
      target: new ort.Tensor("int64", BigInt64Array.of(BigInt(target)), [1]),
    };
    if (about.against) {
      const among = new Uint8Array(about.classes).fill(rivals === null ? 1 : 0);
      for (const rival of rivals ?? []) among[rival] = 1;
      feeds.rivals = new ort.Tensor("bool", among, [1, about.classes]);
    }
    const { logits, heatmap, lost } = await session.run(feeds);
    return { logits: logits.data, heatmap: heatmap.data, lost: lost.data[0] };
  },
};

/** A file's bytes; tells how far it is. */
async function fetched(file, length) {
  const response = await fetch(file);
  if (!response.ok) throw new Error(`${file}: the server answers ${response.status}`);
  const bytes = new Uint8Array(length);
  let place = 0;
  for (const reader = response.body.getReader(); ; ) {
    const { done, value } = await reader.read();
    if (done) break;
    bytes.set(value, place);
    place += value.length;
    self.postMessage({ loaded: place / length });
  }
  if (place !== length) throw new Error(`${file}: ${place} bytes of ${length} came`);
  return bytes;
}

self.onmessage = async ({ data: { id, question, ...given } }) => {
  try {
    self.postMessage({ id, answer: await answers[question](given) });
  } catch (error) {
    self.postMessage({ id, problem: String(error?.message ?? error) });
  }
};
