// Which class is explained, and against which: the five most probable by a click, any by its name.

import { $, make } from "./dom.js";
import { greatest, percent, softmax } from "./names.js";

const SHOWN = 5;

export class Choice {
  target = null;
  rival = null;
  probabilities = [];

  /** rivals: whether the method has them; changed() is called when another choice was made. */
  constructor(names, rivals, changed) {
    this.names = names;
    this.rivals = rivals;
    this.changed = changed;
    $("names").replaceChildren(...names.written.map((value) => make("option", { value })));
    $("rival").hidden = !rivals;
    $("choice").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#read();
    });
    for (const id of ["target", "against"]) $(id).addEventListener("change", () => this.#read());
  }

  /** Of another photo: the first class against all others, unless other ones were chosen. */
  learn(logits) {
    this.probabilities = softmax(logits);
    this.target ??= greatest(this.probabilities, 1)[0];
    this.#draw();
  }

  /** The next photo begins with its own first class. */
  forget() {
    this.target = null;
    this.rival = null;
  }

  /** What is explained, in words. */
  get words() {
    const { written } = this.names;
    const rival = this.rival === null ? "all others" : written[this.rival];
    return this.rivals ? `${written[this.target]} against ${rival}` : written[this.target];
  }

  #read() {
    const typed = { target: $("target").value, against: $("against").value };
    const found = {};
    let fine = true;
    for (const [id, text] of Object.entries(typed)) {
      try {
        const others = id === "against" && ["", "all others"].includes(text.trim().toLowerCase());
        found[id] = others ? null : this.names.index(text);
        if (id === "against" && found.against !== null && found.against === found.target) {
          throw new Error("A class can't be its own rival: choose another one.");
        }
        this.#tell(id, "");
      } catch (error) {
        fine = false;
        this.#tell(id, error.message);
      }
    }
    if (fine) this.#take(found.target, found.against);
  }

  #tell(id, problem) {
    $(`${id}-problem`).textContent = problem;
    $(id).setAttribute("aria-invalid", String(problem !== ""));
  }

  #take(target, rival) {
    if (target === this.target && rival === this.rival) return;
    [this.target, this.rival] = [target, rival];
    this.#draw();
    this.changed();
  }

  #draw() {
    const focused = document.activeElement?.id;
    const first = greatest(this.probabilities, SHOWN);
    $("classes").replaceChildren(...first.map((k) => this.#row(k)));
    $("target").value = this.names.written[this.target];
    $("against").value = this.rival === null ? "" : this.names.written[this.rival];
    for (const id of ["target", "against"]) this.#tell(id, "");
    if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
  }

  #row(k) {
    const [name, share] = [this.names.written[k], this.probabilities[k]];
    const bar = make("span", { className: "share", "aria-hidden": "true" });
    bar.style.setProperty("--share", share);
    const roles = make("span", { className: "roles" }, this.#button(k, "target", "Explain", "Explain"));
    if (this.rivals) roles.append(this.#button(k, "against", "Against", "Contrast with"));
    return make(
      "li",
      {},
      make("span", { className: "label" }, name),
      make("span", { className: "probability" }, percent(share)),
      bar,
      roles,
    );
  }

  #button(k, role, text, hint) {
    const pressed = (role === "target" ? this.target : this.rival) === k;
    const onclick = () => {
      if (role === "target") this.#take(k, this.rival === k ? null : this.rival);
      else if (k !== this.target) this.#take(this.target, pressed ? null : k);
      else this.#tell("against", "A class can't be its own rival: choose another one.");
    };
    const label = `${hint} ${this.names.written[k]}`;
    const properties = { type: "button", id: `${role}-${k}`, onclick };
    return make("button", { ...properties, "data-role": role, "aria-pressed": pressed, "aria-label": label }, text);
  }
}
