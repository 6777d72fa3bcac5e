// Which question the model was trained for, in words. The tasks are those that /api/predict names.

const HINTS = {
  multiclass: "What the model sees. Choose which to explain, and against which others.",
  multilabel:
    "Each class is a question of its own: several may be there, or none, so the percentages need not add up to 100. " +
    "Choose which to explain. It is contrasted with another class only if you choose “Against” there.",
  binary:
    "One question with two answers, whose percentages add up to 100. " +
    "The map of the one is the negative of the other's: what speaks for and what speaks against change places.",
};

export class Question {
  /** `name` gives the name of a class by its number, `count` says how many there are. */
  constructor(task, count, name) {
    this.task = task;
    this.count = count;
    this.name = name;
  }

  get hint() {
    return HINTS[this.task];
  }

  /** Whether there are rivals to choose among. */
  get hasChoice() {
    return this.task !== "binary" && this.count > 1;
  }

  /** Whether a class is contrasted with others where none were chosen. */
  get hasRivals() {
    return this.task === "multiclass";
  }

  /** What a class is contrasted with, or two that are drawn together. */
  contrast(targets, rivals) {
    if (rivals.length) return `against ${rivals.map(this.name).join(", ")}`;
    if (this.task === "binary") return targets.length > 1 ? "" : `against ${this.name(1 - targets[0])}`;
    return this.hasRivals ? "against all other classes" : "by itself";
  }
}
