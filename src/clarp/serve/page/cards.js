// A card for each map: the picture, its value under the point, its scale, and what can be downloaded.

import { $, make, readable, signed, status } from "./dom.js";
import { ask } from "./api.js";
import { bytes, download, numbers, slug } from "./files.js";

/** The card of a map, or of two that are drawn together. `source` has the answer it came in, the board, the photo's file, the look, the query
 * for its picture, whether its method has rivals, whether it contrasts its class with others, and with what in words. */
export function card(maps, source) {
  const [map] = maps;
  const readout = make("output", { className: "readout" });
  const names = maps.map(({ target }) => readable(target.label));
  const read = reader(maps, names);
  const words = source.rivals || !source.contrasts ? source.words : "by itself";
  const { style } = source.query;
  const pictures = map.pictures.map(({ title, png }) => {
    const part = title ? `, what ${title}` : "";
    const label = `Heatmap of ${names.join(" or ")} by ${map.method} ${words}`.trim() + part;
    const picture = source.board.stack(label, { png, whole: style !== "overlay", read, readout });
    return title ? make("div", { className: "part" }, make("p", {}, title), picture) : picture;
  });
  const told = maps.flatMap((one, k) =>
    notes(one, source.contrasts).map((text) => (maps.length > 1 ? `${names[k]}: ${text}` : text)),
  );
  return make(
    "article",
    { className: "card" },
    make("h4", {}, map.method.toUpperCase(), ...(source.rivals ? [] : [" ", make("small", {}, "contrasts with nothing")])),
    ...pictures,
    readout,
    ...(map.scale.bar && map.scale.basis !== "no scale" ? [legend(map.scale, names)] : []),
    ...(map.note ? [make("p", { className: "hint" }, map.note)] : []),
    ...told.map((text) => make("p", { className: "note" }, text)),
    downloads(maps, names, source),
  );
}

/** What is said of a pixel: its value in the map itself, never in the smoothed one. */
function reader(maps, names) {
  const values = maps.map((map) => numbers(bytes(map.heatmap)));
  const [{ scale }] = maps;
  return (place) => {
    const found = values.map((one) => one[place]);
    const smoothed = scale.smoothed ? " before smoothing" : "";
    if (found.length > 1) return found.map((value, k) => `${names[k]} ${signed(value)}`).join(", ") + smoothed;
    const [value] = found;
    if (!Number.isFinite(value)) return "not finite";
    if (smoothed) return signed(value) + smoothed;
    return `${signed(value)}, ${Math.round((100 * Math.abs(value)) / scale.peak)} % of the peak`;
  };
}

function legend({ limit, peak, basis, bar, hues }, names) {
  const [one, other] = hues;
  const ends =
    names.length > 1
      ? [`${other}: ${names[1]}`, "white: both", `${one}: ${names[0]}`]
      : ["−100 % speaks against", "+100 % speaks for"];
  const size = (value) => signed(value).slice(1);
  const told = names.length > 1 ? ends.join(", ") : `${other} speaks against, ${one} speaks for`;
  return make(
    "div",
    { className: "scale", title: `Full colour at ±${size(limit)}, the ${basis}` },
    make("img", { src: `data:image/png;base64,${bar}`, alt: told }),
    make("p", { className: "ends" }, ...ends.map((text) => make("span", {}, text))),
    make("p", {}, `Full colour from ${Math.round((100 * limit) / peak)} %; the peak is ${size(peak)}`),
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
  if (map.remark && map.remark !== warning) found.push(`${map.remark[0].toUpperCase()}${map.remark.slice(1)}.`);
  if (map.selection_skipped) {
    found.push(`Selection was skipped at ${map.selection_skipped} ${map.selection_skipped === 1 ? "layer" : "layers"}.`);
  }
  return found;
}

function downloads(maps, names, source) {
  const stem = source.photo.name.replace(/\.[^.]*$/, "") || "photo";
  const [{ method }] = maps;
  const classes = maps.map(({ target }) => `${target.class}-${slug(target.label)}`);
  const file = (text) => `${stem}.${text}.${method}`;
  const { maps: _, ...answer } = source.answer;
  const told = maps.map(({ python: _, ...rest }) => rest);
  const all = names.join(" or ");
  const drawn = async () => {
    status("Drawing the picture …");
    const answered = await ask("picture", { ...source.query, ...source.look.picture }, source.photo);
    download(await answered.blob(), `${file(classes.join("-vs-"))}.png`);
    status("");
  };
  const made = () => {
    const kept = maps.length > 1 ? { ...answer, maps: told } : { ...answer, map: told[0] };
    download(JSON.stringify(kept, null, 2), `${file(classes.join("-vs-"))}.json`, "application/json");
  };
  const own = maps.flatMap(({ heatmap, python }, k) => {
    const of = maps.length > 1 ? ` ${names[k]}` : "";
    const lines = python.replaceAll('"photo.jpg"', JSON.stringify(source.photo.name));
    return [
      button(`.npy${of}`, `.npy of ${names[k]} by ${method}`, () =>
        download(bytes(heatmap), `${file(classes[k])}.npy`, "application/octet-stream"),
      ),
      button(`Python${of}`, `Python lines for ${names[k]} by ${method}`, () => showLines(lines, `${file(classes[k])}.py`)),
    ];
  });
  return make(
    "div",
    { className: "buttons", role: "group", "aria-label": `Download ${all} by ${method}` },
    button("PNG", `PNG of ${all} by ${method}`, drawn),
    button("JSON", `JSON of ${all} by ${method}`, made),
    ...own,
  );
}

function button(text, label, act) {
  const pressed = () => Promise.resolve(act()).catch((error) => status(error.message));
  return make("button", { type: "button", className: "quiet", "aria-label": label, onclick: pressed }, text);
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
