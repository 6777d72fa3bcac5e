// What covering a part does: a row for each class, before and after.

import { make, percent, readable } from "./dom.js";

export function changes(answer) {
  const points = (value) => (value === null ? "" : `${value < 0 ? "−" : "+"}${Math.abs(100 * value).toFixed(1)}`);
  const rows = answer.classes.map(({ label, before, after }) => {
    const change = before === null || after === null ? null : after - before;
    const row = make(
      "tr",
      { className: Math.abs(change) < 0.0005 ? "" : change < 0 ? "less" : "more" },
      make("th", { scope: "row" }, readable(label)),
      make("td", {}, percent(before)),
      make("td", { className: "bars", "aria-hidden": "true" }, make("i"), make("i")),
      make("td", {}, percent(after)),
      make("td", { className: "change" }, points(change)),
    );
    row.style.setProperty("--before", before ?? 0);
    row.style.setProperty("--after", after ?? 0);
    return row;
  });
  return make(
    "table",
    {},
    make("caption", {}, `${percent(answer.covered)} of the picture is hidden`),
    make(
      "thead",
      {},
      make(
        "tr",
        {},
        make("th", { scope: "col" }, "Class"),
        make("th", { scope: "col" }, "Before"),
        make("td", { className: "bars", "aria-hidden": "true" }),
        make("th", { scope: "col" }, "After"),
        make("th", { scope: "col" }, "Points"),
      ),
    ),
    make("tbody", {}, ...rows),
  );
}

/** The same in a sentence, for screen readers: the class that changed most. */
export function sentence(answer) {
  const size = ({ before, after }) => Math.abs(after - before);
  const most = [...answer.classes].sort((a, b) => size(b) - size(a))[0];
  return `${percent(answer.covered)} hidden. ${readable(most.label)} goes from ${percent(most.before)} to ${percent(most.after)}.`;
}
