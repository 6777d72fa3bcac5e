// From a photo to its map: what the page does, in order.

import { Choice } from "./choice.js";
import { $, make, problem, status } from "./dom.js";
import { Model } from "./model.js";
import { Names, percent } from "./names.js";
import { keeping, whenKept } from "./offline.js";
import { coloursOf, decoded, windowOf } from "./photo.js";
import { drawBar, drawable, drawMap, drawPhoto } from "./picture.js";

const UNKNOWN = -1; // no class: the model says what it sees, and explains nothing
const HALF = 0.5;

let page; // what build.py wrote
let about; // what the model says of itself
let model;
let choice;
let ready; // a promise: the model is loaded
let photo = null; // { bitmap, tensor, part }
let opened = 0; // photos so far; what belongs to an earlier one is dropped
let running = false;
let stale = false; // the choice changed while a map was made

async function start() {
  listen();
  ready = load().catch(({ message }) => {
    throw new Error(`The model can't be loaded (${message}): reload the page to try again.`);
  });
  try {
    await ready;
    if (await whenKept()) $("kept").textContent = "The page is kept in this browser and works without a network.";
  } catch ({ message }) {
    status("");
    problem(message);
  }
}

async function load() {
  await keeping();
  const read = async (name) => (await fetch(name)).json();
  [page, about] = await Promise.all([read("page.json"), read("about.json")]);
  choice = new Choice(new Names(about.labels), about.against, explain);
  $("model").textContent = `${about.model}, explained by ${about.method.toUpperCase()}. Photos stay in this browser.`;
  model = new Model((share) => status(share < 1 ? `Loading the model: ${Math.floor(100 * share)} % …` : "Preparing the model …"));
  await model.load(about, page.model);
  status("");
}

/** Take a photo: show it, ask the model what it sees, explain the first class. */
async function open(file) {
  const turn = ++opened;
  problem("");
  status("Reading the photo …");
  try {
    const bitmap = await decoded(file);
    if (turn !== opened) return;
    photo = null; // the map of the one before it is none of this one
    $("drop-name").textContent = file.name || "Another photo";
    $("welcome").hidden = true;
    $("choosing").hidden = $("work").hidden = $("explained").hidden = true;
    await ready;
    const part = windowOf(bitmap, about.preprocessing);
    drawPhoto($("photo"), bitmap, part);
    describe(bitmap, file.name);
    $("title").textContent = "What does the model see?";
    $("work").hidden = false;
    status("The model looks at the photo …");
    const tensor = await model.prepare(coloursOf(bitmap));
    const { logits } = await model.explain(tensor, UNKNOWN, null);
    if (turn !== opened) return;
    if (!logits.every(Number.isFinite)) throw new Error("The model gives no finite answer for this photo: choose another one.");
    choice.forget();
    choice.learn(logits);
    photo = { bitmap, tensor, part };
    $("choosing").hidden = false;
    await explain();
  } catch (error) {
    if (turn !== opened) return;
    status("");
    problem(error.message);
  }
}

function describe({ width, height }, name) {
  const [rows, columns] = about.preprocessing.size;
  $("seen").textContent = `${width} × ${height} pixels; the model sees what is inside the frame, at ${columns} × ${rows}.`;
  $("photo").setAttribute("aria-label", `The photo${name ? ` ${name}` : ""}`);
}

/** Make the map of what is chosen; a choice that changes meanwhile is made next. */
async function explain() {
  stale = true;
  if (running || !photo) return;
  running = true;
  problem("");
  $("explained").classList.add("waiting");
  try {
    while (stale && photo) {
      stale = false;
      const [asked, { words, target, rival }] = [photo, choice];
      status(`Explaining ${words} …`);
      $("title").replaceChildren(words, " ", make("small", {}, percent(choice.probabilities[target])));
      const started = performance.now();
      const answer = await model.explain(asked.tensor, target, rival === null ? null : [rival]);
      if (asked === photo && !stale) show(answer, words, (performance.now() - started) / 1000);
    }
  } catch (error) {
    problem(`The map can't be made (${error.message}): reload the page and try again.`);
    status("");
  } finally {
    running = false;
    $("explained").classList.remove("waiting");
  }
}

function show({ heatmap, lost }, words, seconds) {
  const [rows, columns] = about.preprocessing.size;
  if (!heatmap.every(Number.isFinite)) throw new Error("its values are not finite");
  const map = drawable(heatmap, columns, rows);
  drawMap($("map"), photo.bitmap, photo.part, map, page.colours);
  const { width, height } = $("map");
  const full = Math.round(100 * map.full);
  $("map").setAttribute("aria-label", `Map of ${words}, ${width} × ${height} pixels: red speaks for the class, blue against it`);
  $("legend").textContent = map.odd || `Smoothed. Colours are in percent of the peak, and full from ${full}\u00a0%.`;
  $("lost").textContent = `${percent(lost)} of the relevance was lost on its way to the pixels.`;
  $("lost").className = lost > HALF ? "problem" : "";
  drawBar($("bar"), map.full ?? 1, page.colours);
  $("explained").hidden = false;
  status(`The map is ready after ${seconds.toFixed(1)} seconds.`);
}

function listen() {
  const take = (files) => {
    if (files.length) open(files[0]);
    else problem("That is not a file: drop a photo, or choose one.");
  };
  $("file").addEventListener("change", ({ target }) => {
    if (target.files.length) take(target.files);
    target.value = ""; // so that the same file can be chosen again
  });
  $("sample").addEventListener("click", async () => {
    const response = await fetch("sample.jpg").catch(() => null);
    if (response?.ok) open(new File([await response.blob()], "the sample photo"));
    else problem("The sample photo can't be loaded: choose one of your own.");
  });
  const over = (event) => {
    event.preventDefault();
    document.body.classList.toggle("dropping", event.type === "dragenter" || event.type === "dragover");
  };
  for (const name of ["dragenter", "dragover", "dragleave"]) document.body.addEventListener(name, over);
  document.body.addEventListener("drop", (event) => {
    over(event);
    take(event.dataTransfer.files);
  });
  document.addEventListener("paste", ({ clipboardData }) => {
    if (clipboardData.files.length) take(clipboardData.files);
  });
}

start();
