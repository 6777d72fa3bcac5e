// How maps are drawn: what the reader chooses, as the API takes it.

import { $, make } from "./dom.js";

const OVER = ["overlay", "pixels", "signs", "versus"]; // the map lies over the photo

export class Look {
  /** changed() is called when maps have to be drawn anew. */
  constructor(changed) {
    for (const id of ["colours", "smoothing"]) $(id).addEventListener("change", changed);
    $("style").addEventListener("change", () => {
      $("opacity").closest(".slider").hidden = !OVER.includes(this.style);
      $("same-scale").closest(".slider").hidden = this.style === "versus"; // whose two maps have one anyway
      changed();
    });
    $("opacity").addEventListener("input", ({ target }) => {
      $("opacity-value").textContent = `${target.value} %`;
      document.documentElement.style.setProperty("--opacity", this.#opacity);
    });
    $("opacity").addEventListener("change", () => {
      if (this.style !== "overlay") changed(); // which the page fades itself
    });
  }

  /** Fill the lists with what the server offers. */
  offer({ styles, colours }) {
    const pair = (one) => `${one.speaks_for} and ${one.speaks_against}`;
    $("style").replaceChildren(...styles.map((name) => make("option", { value: name }, name)));
    $("colours").replaceChildren(...colours.map((one) => make("option", { value: one.name }, pair(one))));
  }

  get style() {
    return $("style").value;
  }

  /** What changes a map on the page. */
  get query() {
    const faded = OVER.includes(this.style) && this.style !== "overlay";
    return {
      style: this.style,
      colours: $("colours").value,
      ...given("smoothing", "smoothing"),
      ...(faded ? { opacity: this.#opacity } : {}),
    };
  }

  /** What besides changes the picture to download. */
  get picture() {
    return { opacity: this.#opacity, ...given("size", "picture-size"), caption: $("caption").checked };
  }

  get #opacity() {
    return Number($("opacity").value) / 100;
  }
}

/** A choice by its name, or nothing where it is left to the server. */
const given = (name, id) => ($(id).value === "" ? {} : { [name]: $(id).value });
