// The names of the classes, and which class a name means.

const SHOWN = 5;
const plain = (name) => name.toLowerCase().replaceAll("_", " ").trim();

export class Names {
  /** labels: in the order of the classes. */
  constructor(labels) {
    const twice = new Set(labels.filter((label, k) => labels.indexOf(label) !== k));
    /** The name of each class, with its number where two classes have one name. */
    this.written = labels.map((label, k) => label.replaceAll("_", " ") + (twice.has(label) ? ` (${k})` : ""));
  }

  /** The class of a name, or of a number; an Error with a sentence for people if there is none. */
  index(typed) {
    const wanted = plain(typed);
    if (!wanted) throw new Error("Type the name of a class.");
    const found = this.written.findIndex((name) => plain(name) === wanted);
    if (found >= 0) return found;
    if (/^\d+$/.test(wanted) && Number(wanted) < this.written.length) return Number(wanted);
    const near = this.written.filter((name) => plain(name).includes(wanted)).slice(0, SHOWN);
    const hint = near.length ? `Is it one of these: ${near.join(", ")}?` : "Choose one from the list.";
    throw new Error(`“${typed.trim()}” is not the name of a class. ${hint}`);
  }
}

/** The probabilities of logits. */
export function softmax(logits) {
  const largest = logits.reduce((one, other) => Math.max(one, other), -Infinity);
  const raised = Array.from(logits, (logit) => Math.exp(logit - largest));
  const sum = raised.reduce((one, other) => one + other, 0);
  return raised.map((value) => value / sum);
}

/** The numbers of the greatest values, the greatest first. */
export const greatest = (values, count) =>
  [...values.keys()].sort((one, other) => values[other] - values[one]).slice(0, count);

export const percent = (share) =>
  share > 0 && share < 0.0005 ? "<0.1\u00a0%" : `${(100 * share).toFixed(1)}\u00a0%`;
