// A card for each map: the picture, its value under the point, its scale, and what can be downloaded.

import { $, make, readable, signed, status } from "./dom.js";
import { ask } from "./api.js";
import { bytes, download, numbers, slug } from "./files.js";

/** The card of a map. `source` has the answer it came in, the board, the photo's file, the query for its picture (its style too), whether
 * its method has rivals, whether it contrasts its class with others, and with what in words. */
export function card(map, source) {
  const readout = make("output", { className: "readout" });
  const name = readable(map.target.label);
  const values = numbers(bytes(map.heatmap));
  const words = source.rivals || !source.contrasts ? source.words : "by itself";
  const { style } = source.query;
  const coloured = style !== "region";
  const pictures = map.pictures.map(({ title, png }) => {
    const part = title ? `, what ${title}` : "";
    const picture = source.board.stack(`Heatmap of ${name} by ${map.method} ${words}${part}`, {
      png,
      whole: style !== "overlay",
      values,
      limit: coloured && !map.scale.smoothed ? map.scale.limit : null,
      readout,
    });
    return title ? make("div", { className: "part" }, make("p", {}, title), picture) : picture;
  });
  return make(
    "article",
    { className: "card" },
    make("h4", {}, map.method.toUpperCase(), ...(source.rivals ? [] : [" ", make("small", {}, "contrasts with nothing")])),
    ...pictures,
    readout,
    ...(coloured && map.scale.basis !== "no scale" ? [scale(map)] : []),
    ...(map.note ? [make("p", { className: "hint" }, map.note)] : []),
    ...notes(map, source.contrasts).map((text) => make("p", { className: "note" }, text)),
    downloads(map, source),
  );
}

function scale(map) {
  const limit = signed(map.scale.limit).slice(1);
  return make(
    "div",
    { className: "scale", title: `Full colour at ±${limit}, the ${map.scale.basis}` },
    make("span", {}, `−${limit}`),
    make("img", { src: "/page/colours.png", alt: "blue speaks against, red speaks for" }),
    make("span", {}, `+${limit}`),
  );
}

function notes(map, contrasts) {
  const { warning } = map.scale;
  const found = warning ? [`${warning[0].toUpperCase()}${warning.slice(1)}.`] : [];
  const { seed, selection, pixels } = map.ledger;
  const arrived = pixels / (seed - selection);
  // A contrast sums to zero, so only maps without rivals can tell.
  if (!contrasts && !warning && arrived < 0.5) {
    found.push(`${Math.round(100 * Math.max(0, arrived))} % of the relevance reached the pixels.`);
  }
  if (map.selection_skipped) {
    found.push(`Selection was skipped at ${map.selection_skipped} ${map.selection_skipped === 1 ? "layer" : "layers"}.`);
  }
  return found;
}

function downloads(map, source) {
  const stem = source.photo.name.replace(/\.[^.]*$/, "") || "photo";
  const file = `${stem}.${map.target.class}-${slug(map.target.label)}.${map.method}`;
  const { maps: _, ...answer } = source.answer;
  const { python, ...told } = map;
  const actions = {
    PNG: async () => {
      status("Drawing the picture …");
      download(await (await ask("picture", source.query, source.photo)).blob(), `${file}.png`);
      status("");
    },
    ".npy": () => download(bytes(map.heatmap), `${file}.npy`, "application/octet-stream"),
    JSON: () => download(JSON.stringify({ ...answer, map: told }, null, 2), `${file}.json`, "application/json"),
    Python: () => showLines(python.replaceAll('"photo.jpg"', JSON.stringify(source.photo.name)), `${file}.py`),
  };
  const what = `${readable(map.target.label)} by ${map.method}`;
  return make(
    "div",
    { className: "buttons", role: "group", "aria-label": `Download ${what}` },
    ...Object.entries(actions).map(([text, act]) =>
      make(
        "button",
        {
          type: "button",
          className: "quiet",
          "aria-label": text === "Python" ? `Python lines for ${what}` : `${text} of ${what}`,
          onclick: () => Promise.resolve(act()).catch((error) => status(error.message)),
        },
        text,
      ),
    ),
  );
}

function showLines(lines, name) {
  $("lines-code").textContent = lines;
  $("lines-copy").onclick = async () => {
    await navigator.clipboard.writeText(lines);
    $("lines-copy").textContent = "Copied";
    setTimeout(() => ($("lines-copy").textContent = "Copy"), 1500);
  };
  $("lines-save").onclick = () => download(lines, name, "text/x-python");
  $("lines").showModal();
}
