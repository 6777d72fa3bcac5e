// The mask that the reader paints: squares on a grid of cells, shared by all pictures.

const CELLS = 56; // along the longer side; finer would be slower to describe, and no fingertip is finer

export class Mask {
  constructor(width, height) {
    this.width = width;
    this.height = height;
    this.cell = Math.max(1, Math.round(Math.max(width, height) / CELLS));
    this.columns = Math.ceil(width / this.cell);
    this.rows = Math.ceil(height / this.cell);
    this.cells = new Uint8Array(this.columns * this.rows);
  }

  get empty() {
    return !this.cells.includes(1);
  }

  clear() {
    this.cells.fill(0);
  }

  /** Cover a square around a pixel; its side is a share of the longer side. */
  paint(x, y, share) {
    const side = Math.max(1, Math.round((share * Math.max(this.width, this.height)) / this.cell));
    const left = Math.round(x / this.cell - side / 2);
    const top = Math.round(y / this.cell - side / 2);
    for (let row = Math.max(0, top); row < Math.min(this.rows, top + side); row += 1) {
      const start = row * this.columns;
      this.cells.fill(1, start + Math.max(0, left), start + Math.max(0, Math.min(this.columns, left + side)));
    }
  }

  /** Cover the way from one pixel to another. */
  stroke(from, to, share) {
    const steps = Math.max(1, Math.ceil(Math.hypot(to.x - from.x, to.y - from.y) / this.cell));
    for (let step = 0; step <= steps; step += 1) {
      const part = step / steps;
      this.paint(from.x + part * (to.x - from.x), from.y + part * (to.y - from.y), share);
    }
  }

  /** Rectangles "top,left,bottom,right" in pixels that cover the same: runs of a row, joined with equal ones below. */
  regions() {
    const open = new Map();
    const done = [];
    for (let row = 0; row <= this.rows; row += 1) {
      const runs = row < this.rows ? this.#runs(row) : [];
      for (const [run, top] of [...open]) {
        if (runs.includes(run)) continue;
        done.push(this.#region(top, row, run));
        open.delete(run);
      }
      for (const run of runs) if (!open.has(run)) open.set(run, row);
    }
    return done;
  }

  #runs(row) {
    const found = [];
    let start = -1;
    for (let column = 0; column <= this.columns; column += 1) {
      const covered = column < this.columns && this.cells[row * this.columns + column];
      if (covered && start < 0) start = column;
      if (!covered && start >= 0) {
        found.push(`${start}-${column}`);
        start = -1;
      }
    }
    return found;
  }

  #region(top, bottom, run) {
    const [left, right] = run.split("-").map(Number);
    const pixels = (cells, most) => Math.min(most, cells * this.cell);
    return [
      pixels(top, this.height),
      pixels(left, this.width),
      pixels(bottom, this.height),
      pixels(right, this.width),
    ].join(",");
  }

  /** Draw the covered cells, a pixel each. */
  draw(canvas) {
    canvas.width = this.columns;
    canvas.height = this.rows;
    const image = new ImageData(this.columns, this.rows);
    this.cells.forEach((covered, place) => {
      if (covered) image.data.set([118, 120, 128, 225], 4 * place);
    });
    canvas.getContext("2d").putImageData(image, 0, 0);
  }
}
