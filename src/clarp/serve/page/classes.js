// The list of classes: what the model sees, and what the reader adds.

import { $, make, percent, readable } from "./dom.js";

export class Classes {
  /** changed() is called when another choice was made; meaning(name) asks the server which class a name means. */
  constructor(changed, meaning) {
    this.changed = changed;
    this.meaning = meaning;
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

  async #add(text, role) {
    const typed = text.trim();
    this.asked = typed;
    let found = this.#written(typed);
    if (found < 0 && typed) {
      const answer = await this.meaning(typed).catch(({ message }) => ({ meant: null, near: [], problem: message }));
      if (this.asked !== typed) return; // something else was typed meanwhile
      found = answer.meant ?? -1;
      if (found < 0) this.#refuse(answer, role);
    } else if (!typed) {
      this.#refuse({ near: [], problem: "Type the name of a class." }, role);
    }
    if (found >= 0) this.#take(found, role);
  }

  #take(index, role) {
    this.#refuse({ near: [], problem: "" });
    $("typed").value = "";
    this.#row(index)[role] = true;
    this.draw();
    this.changed();
  }

  /** Say why a name is none of one class, and offer those that are like it. */
  #refuse({ near, problem }, role) {
    $("typed-problem").textContent = near.length ? `“${this.asked}” is not the name of one class. Is it one of these?` : problem;
    $("typed").setAttribute("aria-invalid", String(problem !== ""));
    const choose = ({ class: index }) => {
      const take = () => {
        this.#take(index, role);
        $("typed").focus();
      };
      return make("button", { type: "button", className: "quiet", onclick: take }, readable(this.written[index]));
    };
    $("typed-near").replaceChildren(...near.map(choose));
    $("typed-near").hidden = !near.length;
  }

  /** The index of a class by its number, or its name as the list has it; -1 if it is neither. */
  #written(typed) {
    const plain = (name) => name.toLowerCase().replaceAll("_", " ");
    if (/^\d+$/.test(typed) && Number(typed) < this.labels.length) return Number(typed);
    return this.written.findIndex((name) => plain(name) === plain(typed));
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
