
"use strict";
// The page's own script. Names from a data set only ever become text, never markup.
const PAGE = 24, KEPT = 40, ENDS = 5;
const $ = (id) => document.getElementById(id);
let index, inside, starts = [], shown = [], page = 0, only = null;
const loading = new Map();   // part -> {promise, resolve}, the least recently used first
const cells = new WeakMap(); // canvas -> {map, photo, name}

function element(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

// ---- data: inside the page, or in scripts beside it, for a file may not fetch ----

function clarpIndex(document_) {
  index = document_;
  let sum = 0;
  for (const size of index.parts) { starts.push(sum); sum += size; }
  begin();
}

function clarpPart(number, part) { loading.get(number)?.resolve(part); }

function load(number) {
  if (inside) return Promise.resolve(inside.parts[number]);
  const known = loading.get(number);
  if (known) { loading.delete(number); loading.set(number, known); return known.promise; }
  const entry = {};
  entry.promise = new Promise((resolve) => { entry.resolve = resolve; });
  loading.set(number, entry);
  const script = element("script", { src: `data/part-${String(number).padStart(5, "0")}.js` });
  script.onload = () => script.remove();
  script.onerror = () => { script.remove(); entry.resolve(null); };
  document.head.append(script);
  if (loading.size > KEPT) loading.delete(loading.keys().next().value);
  return entry.promise;
}

async function pictures(unit) {
  let low = 0, high = starts.length - 1;
  if (high < 0) return null;
  while (low < high) { const middle = (low + high + 1) >> 1; if (starts[middle] <= unit) low = middle; else high = middle - 1; }
  const part = await load(low);
  if (!part) return null;
  const at = unit - starts[low], count = index.methods.length;
  let own = at;
  while (own > 0 && part.photos[own] === null) own--; // several labels of one photo
  return { photo: part.photos[own], boxes: part.boxes[at], maps: part.maps.slice(at * count, (at + 1) * count) };
}

// ---- maps ----

function decoded(map) {
  const [height, width, peak, limit, text] = map, raw = atob(text), values = new Float64Array(raw.length);
  for (let k = 0; k < raw.length; k++) {
    const code = (raw.charCodeAt(k) << 24) >> 24;
    values[k] = code === -128 ? NaN : Math.sign(code) * (code / 127) ** 2 * peak;
  }
  return { height, width, limit, values };
}

let palette;
function colour(strength) {
  if (!palette) palette = index.colours.match(/../g).map((digits) => parseInt(digits, 16));
  const last = palette.length / 3 - 1;
  return 3 * (Number.isNaN(strength) ? last : Math.round((strength + 1) / 2 * (last - 1)));
}

/** The map over the faded photo, as clarp's overlays: opacity is the strength to the power of 0.7. */
function draw(canvas) {
  const { map, photo } = cells.get(canvas), context = canvas.getContext("2d", { willReadFrequently: true });
  const amount = $("opacity").value / 100, { width, height } = canvas;
  context.drawImage(photo, 0, 0, width, height);
  const picture = context.getImageData(0, 0, width, height), data = picture.data;
  for (let y = 0, k = 0; y < height; y++) {
    const v = Math.min(Math.max((y + .5) * map.height / height - .5, 0), map.height - 1), y0 = Math.floor(v), y1 = Math.min(y0 + 1, map.height - 1), fy = v - y0;
    for (let x = 0; x < width; x++, k += 4) {
      const u = Math.min(Math.max((x + .5) * map.width / width - .5, 0), map.width - 1), x0 = Math.floor(u), x1 = Math.min(x0 + 1, map.width - 1), fx = u - x0;
      const a = map.values[y0 * map.width + x0], b = map.values[y0 * map.width + x1], c = map.values[y1 * map.width + x0], d = map.values[y1 * map.width + x1];
      const value = (a + (b - a) * fx) * (1 - fy) + (c + (d - c) * fx) * fy;
      const strength = Math.max(-1, Math.min(1, value / map.limit)), at = colour(strength);
      const opacity = amount * (Number.isNaN(strength) ? 1 : Math.abs(strength) ** .7);
      const pale = 255 * .3 + .7 * (.299 * data[k] + .587 * data[k + 1] + .114 * data[k + 2]);
      for (let channel = 0; channel < 3; channel++) {
        const ground = data[k + channel] * (1 - amount) + pale * amount;
        data[k + channel] = ground * (1 - opacity) + palette[at + channel] * opacity;
      }
    }
  }
  context.putImageData(picture, 0, 0);
}

function value(map, row, column) {
  const found = map.values[row * map.width + column];
  return `${Number.isNaN(found) ? "not finite" : (found > 0 ? "+" : "") + minus(found.toPrecision(3))} at row ${row + 1} of ${map.height}, column ${column + 1} of ${map.width}`;
}

const images = (text) => new Promise((resolve) => {
  const image = new Image();
  image.onload = () => resolve(image);
  image.onerror = () => resolve(null);
  image.src = `data:image/jpeg;base64,${text}`;
});

function canvasOf(photo, map, name) {
  const canvas = element("canvas", { width: photo.naturalWidth, height: photo.naturalHeight });
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", name);
  cells.set(canvas, { map: decoded(map), photo, name });
  draw(canvas);
  canvas.addEventListener("pointermove", (event) => {
    const box = canvas.getBoundingClientRect(), { map: own } = cells.get(canvas), hover = $("hover");
    const row = Math.min(own.height - 1, Math.max(0, Math.floor((event.clientY - box.top) / box.height * own.height)));
    const column = Math.min(own.width - 1, Math.max(0, Math.floor((event.clientX - box.left) / box.width * own.width)));
    hover.textContent = value(own, row, column);
    hover.hidden = false;
    hover.style.left = `${Math.min(event.clientX + 14, innerWidth - hover.offsetWidth - 4)}px`;
    hover.style.top = `${Math.min(event.clientY + 18, innerHeight - 30)}px`;
    (canvas.closest("dialog") ?? document.body).append(hover);
  });
  canvas.addEventListener("pointerleave", () => { $("hover").hidden = true; });
  return canvas;
}

/** A picture with the boxes of its label and a place, edges in shares of its sides. */
function framed(picture, boxes, place) {
  if (!boxes.length && !place) return picture;
  const frames = [...boxes, ...(place ? [place] : [])].map((edges) => {
    const [left, top, right, bottom] = edges, frame = element("span", { className: edges === place ? "box place" : "box" });
    const sides = { left, top, width: right - left, height: bottom - top };
    for (const [side, share] of Object.entries(sides)) frame.style[side] = `${100 * share}%`;
    return frame;
  });
  return element("div", { className: "framed" }, picture, ...frames);
}

// ---- words and numbers ----

const named = (number) => (index.classes[number] ?? String(number)).replaceAll("_", " ");
const percent = (share) => share === null ? "" : ` ${(100 * share).toFixed(1)} %`;
const RAISED = { "+": "", "-": "\u207b", 0: "\u2070", 1: "\u00b9", 2: "\u00b2", 3: "\u00b3", 4: "\u2074", 5: "\u2075", 6: "\u2076", 7: "\u2077", 8: "\u2078", 9: "\u2079" };
const minus = (text) => text.replace(/e(.*)/, (_, power) => `\u00d710${[...power].map((one) => RAISED[one]).join("")}`).replace("-", "\u2212");
const short = (number) => number === null || number === undefined ? "not asked" : minus(Math.abs(number) >= 0.001 || number === 0 ? String(Number(number.toFixed(4))) : number.toPrecision(2));
// Of many findings several may be there, so each is asked by itself, and not which of them is the most probable.
const alone = () => index.task === "multilabel";
const there = (unit) => index.probability[unit] >= .5;
const right = (unit) => alone() ? there(unit) === index.label[unit].includes(index.target[unit]) : index.label[unit].includes(index.predicted[unit]);
const at = (column, unit, method) => index.values[column][unit * index.methods.length + method];
const better = (column) => index.columns.find((entry) => entry.name === column).better;

function saying(unit) {
  const label = index.label[unit].map(named).join(" or ") || "no label", told = index.predicted[unit];
  const says = alone() ? (there(unit) ? "that it is there" : "that it is not there") : right(unit) ? "so too" : named(told);
  return `label: ${label}; explained: ${named(index.target[unit])}${percent(index.probability[unit])}; the model says ${says}`;
}

// ---- best and worst ----

function ranked(units, column, method, first) {
  const sign = (better(column) === "higher" ? -1 : 1) * (first === "best" ? 1 : -1);
  const value_ = (unit) => at(column, unit, method);
  return units.filter((unit) => value_(unit) !== null).sort((a, b) => sign * (value_(a) - value_(b)) || a - b);
}

/** So many best and worst ones, none of them both. */
function extremes(column, method) {
  const order = ranked(index.id.map((_, unit) => unit), column, method, "best");
  const few = Math.min(ENDS, Math.floor(order.length / 2));
  return { best: order.slice(0, few || 1), worst: few ? order.slice(-few).reverse() : [] };
}

/** A unit's map by a method, or its photo where there is none, that opens it large; with a place outlined, if one is given. */
function thumbnail(unit, m, said, caption, place) {
  const figure = element("figure", {}), button = element("button", { type: "button" });
  button.setAttribute("aria-label", said);
  button.addEventListener("click", () => open_(unit));
  figure.append(button, element("figcaption", { textContent: caption }));
  lazily(figure, async () => {
    const found = await pictures(unit), photo = found && await images(found.photo);
    const shown = photo && (found.maps[m] ? canvasOf(photo, found.maps[m], `${index.methods[m]} on ${index.id[unit]}`) : Object.assign(photo, { alt: index.id[unit] }));
    if (shown) button.append(framed(shown, found.boxes, place));
    else button.textContent = index.id[unit];
  });
  return figure;
}

function ends() {
  const holder = $("ends"), chosen = index.columns[$("column").value];
  holder.replaceChildren();
  if (!chosen) return;
  for (const m of index.pictured) {
    const method = index.methods[m], pair = element("div", { className: "pair" });
    for (const [which, units] of Object.entries(extremes(chosen.name, m))) {
      const maps = element("div", { className: "maps" });
      for (const unit of units) {
        const number = short(at(chosen.name, unit, m));
        maps.append(thumbnail(unit, m, `${method}, ${which}: ${index.id[unit]}, ${number}; open`, `${number}, ${index.label[unit].map(named)[0] ?? ""}`));
      }
      pair.append(element("div", {}, element("h4", { textContent: which }), maps));
    }
    holder.append(element("div", { className: "end" }, element("h3", { textContent: method }), pair));
  }
}

// ---- the grid ----

const due = new WeakMap();
const watcher = new IntersectionObserver((entries) => {
  for (const entry of entries) if (entry.isIntersecting) {
    watcher.unobserve(entry.target);
    due.get(entry.target)?.();
    due.delete(entry.target);
  }
}, { rootMargin: "300px" });
function lazily(target, work) { due.set(target, work); watcher.observe(target); }

const chosenMethods = () => [...document.querySelectorAll("input[name=method]:checked")].map((box) => Number(box.value));

async function fill(holder, unit, methods) {
  const found = await pictures(unit), photo = found && await images(found.photo);
  if (!photo) {
    holder.append(element("p", { className: "small", textContent: "No pictures were kept of this one." }));
    return;
  }
  photo.alt = `photo ${index.id[unit]}`;
  const words = found.boxes.length ? "photo, with the label's boxes" : "photo";
  holder.append(element("figure", {}, framed(photo, found.boxes), element("figcaption", { textContent: words })));
  const column = index.columns[$("column").value];
  for (const m of methods) {
    if (!found.maps[m]) continue;
    const canvas = canvasOf(photo, found.maps[m], `${index.methods[m]} on ${index.id[unit]}`);
    const number = column ? `${index.methods[m]}: ${short(at(column.name, unit, m))}` : index.methods[m];
    const told = cells.get(canvas).map.values.every((one) => one === 0) ? `${number} (no relevance)` : number;
    holder.append(element("figure", {}, framed(canvas, found.boxes), element("figcaption", { textContent: told })));
  }
}

function card(unit) {
  const title = element("button", { type: "button", textContent: index.id[unit] }), maps = element("div", { className: "maps" });
  title.addEventListener("click", () => open_(unit));
  const made = element("article", { className: "card" }, element("h3", {}, title), element("p", { className: "small", textContent: saying(unit) }), maps);
  lazily(made, () => fill(maps, unit, chosenMethods()));
  return element("li", {}, made);
}

function filter() {
  const wanted = $("class").value, told = $("prediction").value, m = Number($("of").value), file = $("find").value.toLowerCase();
  const [hit, ...hitColumn] = $("hit").value.split(" "), [order, ...orderColumn] = $("order").value.split(" ");
  shown = index.id.map((_, unit) => unit).filter((unit) =>
    (only === null || only.has(unit)) &&
    (wanted === "" || index.label[unit].includes(Number(wanted))) &&
    (told === "" || right(unit) === (told === "right")) &&
    (hit === "" || at(hitColumn.join(" "), unit, m) === Number(hit)) &&
    index.id[unit].toLowerCase().includes(file));
  if (order === "unsure") shown.sort((a, b) => index.probability[a] - index.probability[b] || a - b);
  else if (order) shown = ranked(shown, orderColumn.join(" "), m, order);
  page = 0;
  turn(0);
}

function turn(by) {
  const pages = Math.max(1, Math.ceil(shown.length / PAGE));
  page = Math.min(pages - 1, Math.max(0, page + by));
  $("grid").replaceChildren(...shown.slice(page * PAGE, (page + 1) * PAGE).map(card));
  const column = index.columns[$("column").value];
  $("status").textContent = `${shown.length} of ${index.id.length} pictures and labels` + (column ? `; the numbers are ${column.name}` : "");
  $("page").textContent = `page ${page + 1} of ${pages}`;
  $("first").disabled = $("before").disabled = page === 0;
  $("last").disabled = $("after").disabled = page === pages - 1;
}

// ---- one picture, large ----

async function open_(unit) {
  $("large-title").textContent = index.id[unit];
  $("large-text").textContent = saying(unit);
  const maps = $("large-maps");
  maps.replaceChildren();
  const head = element("tr", {}, element("th", { scope: "col", textContent: "method" }), ...index.columns.map((c) => element("th", { scope: "col", textContent: c.name })));
  const rows = index.methods.map((method, m) => element("tr", {}, element("th", { scope: "row", textContent: method }), ...index.columns.map((c) => element("td", { textContent: short(at(c.name, unit, m)) }))));
  $("large-numbers").replaceChildren(element("table", {}, element("thead", {}, head), element("tbody", {}, ...rows)));
  $("large").showModal();
  await fill(maps, unit, index.methods.keys());
  for (const canvas of maps.querySelectorAll("canvas")) steer(canvas);
}

/** A map that the arrow keys read: they move a place, and its value is said. */
function steer(canvas) {
  const { map, name } = cells.get(canvas);
  let row = map.height >> 1, column = map.width >> 1;
  canvas.tabIndex = 0;
  canvas.setAttribute("role", "application");
  canvas.setAttribute("aria-roledescription", "map");
  canvas.setAttribute("aria-label", `${name}; arrow keys read its values`);
  const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  canvas.addEventListener("keydown", (event) => {
    const step = steps[event.key];
    if (!step) return;
    event.preventDefault();
    row = Math.min(map.height - 1, Math.max(0, row + step[0]));
    column = Math.min(map.width - 1, Math.max(0, column + step[1]));
    draw(canvas);
    const context = canvas.getContext("2d"), w = canvas.width / map.width, h = canvas.height / map.height;
    context.lineWidth = 2;
    context.strokeStyle = "#000";
    context.strokeRect(column * w - 2, row * h - 2, w + 4, h + 4);
    context.strokeStyle = "#fff";
    context.strokeRect(column * w - 3.5, row * h - 3.5, w + 7, h + 7);
    $("large-value").textContent = `${name.split(" on ")[0]}: ${value(map, row, column)}`;
  });
}

