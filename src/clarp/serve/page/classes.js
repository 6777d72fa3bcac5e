// The list of classes: what the model sees, and what the reader adds.

import { $, make, percent, readable } from "./dom.js";

export class Classes {
  /** changed() is called when another choice was made. */
  constructor(changed) {
    this.changed = changed;
    this.rows = [];
    this.labels = [];
    $("adding").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#add($("typed").value, event.submitter?.value === "against" ? "against" : "target");
    });
  }

  get targets() {
    return this.rows.filter((row) => row.target).map((row) => row.index);
  }

  get against() {
    return this.rows.filter((row) => row.against).map((row) => row.index);
  }

  probability(index) {
    return this.rows.find((row) => row.index === index)?.probability;
  }

  name(index) {
    return readable(this.labels[index]);
  }

  setLabels(labels) {
    this.labels = labels;
    this.rows = [];
    const twice = new Set(labels.filter((label, index) => labels.indexOf(label) !== index));
    this.written = labels.map((label, index) => (twice.has(label) ? `${label} (${index})` : label));
    $("labels").replaceChildren(...this.written.map((value) => make("option", { value })));
  }

  /** The predictions of a photo; classes that were chosen stay, and with none chosen it is the first. Rivals may be chosen or not. */
  setPredictions(predictions, rivals) {
    this.rivals = rivals;
    const kept = this.rows.filter((row) => row.target || row.against);
    this.rows = [];
    for (const found of predictions) {
      const { class: index, probability } = found;
      this.rows.push({ index, probability, target: false, against: false });
    }
    for (const { index, target, against } of kept) Object.assign(this.#row(index), { target, against });
    if (!this.targets.length && this.rows.length) this.rows[0].target = true;
    this.draw();
  }

  /** Probabilities that came with another answer. */
  learn(classes) {
    for (const { class: index, probability } of classes) {
      const row = this.rows.find((one) => one.index === index);
      if (!row || row.probability === probability) continue;
      row.probability = probability;
      this.#show(row);
    }
  }

  #row(index) {
    let row = this.rows.find((one) => one.index === index);
    if (!row) {
      row = { index, probability: undefined, target: false, against: false };
      this.rows.push(row);
    }
    return row;
  }

  #add(text, role) {
    const found = this.#find(text);
    const input = $("typed");
    $("typed-problem").textContent = typeof found === "string" ? found : "";
    input.setAttribute("aria-invalid", String(typeof found === "string"));
    if (typeof found === "string") return;
    input.value = "";
    this.#row(found)[role] = true;
    this.draw();
    this.changed();
  }

  /** The index of a class as it was typed, or a sentence that says why there is none. */
  #find(text) {
    const plain = (name) => name.trim().toLowerCase().replaceAll("_", " ");
    const wanted = plain(text);
    if (!wanted) return "Type the name of a class.";
    if (/^\d+$/.test(wanted) && Number(wanted) < this.labels.length) return Number(wanted);
    const exact = this.written.findIndex((name) => plain(name) === wanted);
    if (exact >= 0) return exact;
    const near = [...this.labels.keys()].filter((index) => plain(this.labels[index]).includes(wanted));
    if (near.length === 1) return near[0];
    const names = near.slice(0, 5).map((index) => this.written[index]);
    return `There is no class “${text.trim()}”` + (names.length ? `; there are ${names.join(", ")}.` : ".");
  }

  draw() {
    const focused = document.activeElement?.id;
    $("classes").replaceChildren(...this.rows.map((row) => this.#item(row)));
    if (focused) $(focused)?.focus({ preventScroll: true });
  }

  #item(row) {
    const name = this.name(row.index);
    const button = (role, text, hint) =>
      make(
        "button",
        {
          type: "button",
          id: `${role}-${row.index}`,
          className: role === "target" ? "for" : "against",
          "aria-pressed": row[role],
          "aria-label": `${hint} ${name}`,
          onclick: (event) => {
            row[role] = !row[role];
            event.currentTarget.setAttribute("aria-pressed", row[role]);
            this.changed();
          },
        },
        text,
      );
    row.shown = make("span", { className: "probability" });
    row.item = make(
      "li",
      {},
      make("span", { className: "label" }, name),
      row.shown,
      make("span", { className: "bar", "aria-hidden": "true" }),
      make(
        "span",
        { className: "roles" },
        button("target", "Explain", "Explain"),
        ...(this.rivals ? [button("against", "Against", "Contrast with")] : []),
      ),
    );
    this.#show(row);
    return row.item;
  }

  #show(row) {
    row.shown.textContent = row.probability === undefined ? "" : percent(row.probability);
    row.item.style.setProperty("--share", row.probability ?? 0);
  }
}
