// The model, which works in a worker, as the page asks it.

export class Model {
  #worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
  #open = new Map();
  #asked = 0;

  /** loading(share) is told how much of the file has come. */
  constructor(loading) {
    this.#worker.onmessage = ({ data: { id, answer, problem, loaded } }) => {
      if (id === undefined) return loading(loaded);
      const { resolve, reject } = this.#open.get(id);
      this.#open.delete(id);
      if (problem === undefined) resolve(answer);
      else reject(new Error(problem));
    };
    this.#worker.onerror = ({ message }) => {
      for (const { reject } of this.#open.values()) reject(new Error(message ?? "the worker can't be started"));
      this.#open.clear();
    };
  }

  /** about: what the file says of itself; file and bytes: of the model. */
  load = (about, { file, bytes }) => this.#ask("load", { about, file: new URL(file, document.baseURI).href, bytes });

  /** What the model gets of a photo, see coloursOf. */
  prepare = (photo) => this.#ask("prepare", { photo }, [photo.pixels.buffer]);

  /** { logits, heatmap, lost }; rivals: a list of classes, or null for all others. */
  explain = (tensor, target, rivals) => this.#ask("explain", { tensor, target, rivals });

  #ask(question, given, moved = []) {
    const id = this.#asked++;
    this.#worker.postMessage({ id, question, ...given }, moved);
    return new Promise((resolve, reject) => this.#open.set(id, { resolve, reject }));
  }
}
