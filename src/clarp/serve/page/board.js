// The pictures of one photo: they share a point that is read, and a mask that is painted.

import { $, make } from "./dom.js";
import { Mask } from "./brush.js";

export class Board {
  /** painted() is called when a stroke of the brush ends. */
  constructor(seen, painted) {
    this.width = seen.width;
    this.height = seen.height;
    this.ground = `data:image/png;base64,${seen.png}`;
    this.mask = new Mask(seen.width, seen.height);
    this.painted = painted;
    this.stacks = new Set();
    this.x = Math.floor(seen.width / 2);
    this.y = Math.floor(seen.height / 2);
  }

  /** A picture: the photo, and over it a map, if there is one. `map` has png, whether it is whole (else the photo shows through),
   * readout (an element) and read(place): what that says of a pixel, by its number. */
  stack(label, map = null) {
    const canvas = make("canvas", { className: "mask" });
    const element = make(
      "div",
      {
        className: map ? (map.whole ? "stack whole" : "stack") : "stack plain",
        tabIndex: 0,
        role: "application",
        "aria-label": `${label}. Arrow keys move the point, Space covers the place.`,
      },
      make("img", { className: "ground", src: this.ground, alt: "", draggable: false }),
      ...(map
        ? [make("img", { className: "layer", src: `data:image/png;base64,${map.png}`, alt: "", draggable: false })]
        : []),
      canvas,
      make("span", { className: "point" }),
    );
    element.style.setProperty("--shape", `${this.width} / ${this.height}`);
    const one = { element, canvas, map };
    this.stacks.add(one);
    this.#listen(one);
    this.#drawMask(one);
    this.#place(one);
    return element;
  }

  moveTo(x, y) {
    this.x = Math.max(0, Math.min(this.width - 1, x));
    this.y = Math.max(0, Math.min(this.height - 1, y));
    $("place").textContent = `Row ${this.y}, column ${this.x}`;
    for (const one of this.stacks) this.#place(one);
  }

  drawMask() {
    for (const one of this.stacks) this.#drawMask(one);
  }

  #drawMask(one) {
    this.mask.draw(one.canvas);
  }

  #place({ element, map }) {
    element.style.setProperty("--x", `${(100 * (this.x + 0.5)) / this.width}%`);
    element.style.setProperty("--y", `${(100 * (this.y + 0.5)) / this.height}%`);
    if (map) map.readout.textContent = map.read(this.y * this.width + this.x);
  }

  #listen(one) {
    const { element } = one;
    let from = null;
    const pixel = (event) => {
      const box = element.getBoundingClientRect();
      return {
        x: Math.floor(((event.clientX - box.left) / box.width) * this.width),
        y: Math.floor(((event.clientY - box.top) / box.height) * this.height),
      };
    };
    element.addEventListener("pointerdown", (event) => {
      const here = pixel(event);
      this.moveTo(here.x, here.y);
      const painting = event.pointerType === "mouse" || document.body.classList.contains("brushing");
      if (event.button !== 0 || !painting) return;
      element.setPointerCapture(event.pointerId);
      from = here;
      this.#stroke(here, here);
    });
    element.addEventListener("pointermove", (event) => {
      const here = pixel(event);
      this.moveTo(here.x, here.y);
      if (!from) return;
      this.#stroke(from, here);
      from = here;
    });
    const end = () => {
      if (from) this.painted();
      from = null;
    };
    element.addEventListener("pointerup", end);
    element.addEventListener("pointercancel", end);
    element.addEventListener("keydown", (event) => this.#key(event, one));
  }

  #key(event, { map }) {
    const step = event.shiftKey ? 10 : 1;
    const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
    if (event.key in moves) {
      const [right, down] = moves[event.key];
      this.moveTo(this.x + right, this.y + down);
      $("spoken").textContent =
        `Row ${this.y}, column ${this.x}` + (map ? `: ${map.readout.textContent}` : "");
    } else if (event.key === " ") {
      this.#stroke(this, this);
      this.painted();
    } else {
      return;
    }
    event.preventDefault();
  }

  #stroke(from, to) {
    this.mask.stroke(from, to, Number($("size").value) / 100);
    this.drawMask();
  }
}
