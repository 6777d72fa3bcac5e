// The page: what is chosen becomes questions, answers become cards.

import { $, make, percent, problem, status } from "./dom.js";
import { askJson, takeToken } from "./api.js";
import { Board } from "./board.js";
import { Classes } from "./classes.js";
import { card } from "./cards.js";
import { changes, sentence } from "./changes.js";
import { Look } from "./look.js";
import { Question } from "./question.js";

const classes = new Classes(
  () => soon(),
  (name) => askJson("class", { model: model(), name }),
);
const look = new Look(() => soon());
const chosen = new Set(["ssglrp", "lrp"]);
let about = null;
let photo = null;
let board = null;
let question = null;
let cards = new Map(); // by what was asked: a card, or the error in its place
let running = new AbortController();
let masking = new AbortController();
let timer = 0;
let ready = null; // a promise: what there is to choose from is known

const model = () => $("model").value;
const fail = (error) => {
  if (error.name === "AbortError") return;
  status("");
  problem(error.message);
};

async function start() {
  takeToken();
  about = await askJson("about");
  $("model").replaceChildren(...about.models.map(({ name }) => make("option", { value: name }, name)));
  $("model-choice").hidden = about.models.length < 2;
  $("methods").replaceChildren(...offered().map(methodChoice));
  look.offer(about);
  await loadLabels();
}

/** The methods, and what they can be compared with. */
const offered = () => [...about.methods, ...about.baselines];

function methodChoice({ name, has_rivals: rivals, definition, when }) {
  const box = make("input", { type: "checkbox", value: name, checked: chosen.has(name), title: when });
  const told = () => ($("method-hint").textContent = `${name.toUpperCase()}: ${when}`);
  box.addEventListener("change", () => {
    if (box.checked) chosen.add(name);
    else chosen.delete(name);
    soon();
  });
  box.addEventListener("focus", told);
  const made = rivals ? definition : `${definition}; it contrasts with nothing`;
  const kind = about.baselines.some((one) => one.name === name) ? "chip baseline" : "chip";
  const properties = { className: kind, title: made, onpointerenter: told, onclick: told };
  return make("label", properties, box, name.toUpperCase());
}

async function loadLabels() {
  const asked = model();
  const { labels } = await askJson("classes", { model: asked });
  if (asked !== model()) return; // another was chosen meanwhile, and its names may be here already
  classes.setLabels(labels);
  const { notes } = about.models.find(({ name }) => name === asked);
  $("notes").replaceChildren(...notes.map((note) => make("li", {}, note)));
}

/** Another photo, or the same one for another model. */
async function show(file) {
  if (!file) return;
  problem();
  if (file.size > about.limits.photo_bytes) {
    problem(`${file.name} has ${(file.size / 2 ** 20).toFixed(1)} MB; at most ${about.limits.photo_bytes / 2 ** 20} MB are taken.`);
    return;
  }
  running.abort();
  running = new AbortController();
  status("The model looks at the photo …");
  const answer = await askJson("predict", { model: model(), top: 5 }, file, running.signal);
  photo = file;
  board = new Board(answer.seen, () => mask());
  cards = new Map();
  $("drop-name").textContent = file.name;
  $("changes").replaceChildren();
  $("clear").disabled = true;
  const plain = board.stack("The photo as the model sees it");
  $("photo-card").replaceChildren(
    make(
      "article",
      { className: "card" },
      make("h3", {}, "What the model sees"),
      plain,
      make("p", { className: "readout" }, `${answer.photo.width} × ${answer.photo.height}, seen at ${board.width} × ${board.height}`),
      ...answer.photo.notes.map((text) => make("p", { className: "note" }, text)),
    ),
  );
  $("maps").replaceChildren();
  $("welcome").hidden = true;
  $("choosing").hidden = false;
  $("work").hidden = false;
  question = new Question(answer.task, classes.labels.length, (index) => classes.name(index));
  $("classes-hint").textContent = question.hint;
  $("adding").hidden = !question.hasChoice;
  classes.setPredictions(answer.predictions, question.hasChoice);
  await explain();
}

/** A moment later, so that several clicks are one question. */
function soon() {
  clearTimeout(timer);
  timer = setTimeout(() => explain().catch(fail), 150);
}

/** The classes that are drawn together: each by itself, or of the style versus two; none where there are not two. */
function groups() {
  const { targets } = classes;
  if (look.style !== "versus") return targets.map((target) => [target]);
  return targets.length === 2 ? [targets] : [];
}

/** What is wanted, a list of {key, method, targets, drawn: as it is drawn, asked: against which it is asked, others: as it is meant, rivals:
 * whether the method has any, contrasts: whether the map shows a class against others}. */
function wanted() {
  const { against } = classes;
  const shared = $("same-scale").checked ? classes.targets : null; // on one scale, each map depends on all of them
  const drawn = look.query;
  return groups().flatMap((targets) =>
    offered()
      .filter(({ name }) => chosen.has(name))
      .map(({ name, has_rivals: rivals }) => {
        // A target is never its own rival, so that all targets with rivals left are one question.
        const left = targets.every((target) => against.some((index) => index !== target));
        const asked = rivals && left ? against : [];
        const others = asked.filter((index) => targets.length > 1 || index !== targets[0]);
        const key = JSON.stringify([name, targets, others, shared, drawn]);
        const contrasts = others.length > 0 || (rivals && question.hasRivals);
        return { key, method: name, targets, drawn, asked, others, rivals, contrasts };
      }),
  );
}

async function explain() {
  if (!photo) return;
  running.abort();
  running = new AbortController();
  problem();
  const maps = wanted();
  const count = maps.reduce((sum, { targets }) => sum + targets.length, 0);
  if (count > about.limits.maps) {
    problem(`${count} maps are chosen (classes times methods); at most ${about.limits.maps} are made at once.`);
    return;
  }
  for (const [key, element] of cards) if (element.classList.contains("failed")) cards.delete(key);
  draw(maps);
  if (!maps.length) {
    status(groups().length ? "Choose a method." : look.style === "versus" ? "Choose two classes." : "Choose a class to explain.");
    return;
  }
  const missing = maps.filter(({ key }) => !cards.has(key));
  const ready = `${maps.length} ${maps.length === 1 ? "map is" : "maps are"} ready.`;
  if (!missing.length) {
    status(ready);
    return;
  }
  status(`Explaining: ${missing.length} ${missing.length === 1 ? "map" : "maps"} …`);
  const asked = Map.groupBy(missing, ({ method, asked }) => JSON.stringify([method, asked]));
  const { signal } = running;
  await Promise.all([...asked.values()].map((group) => explainOne(group, signal)));
  if (!signal.aborted) status(ready);
}

/** The maps of one method against the same classes. */
async function explainOne(group, signal) {
  const [{ method, asked, drawn }] = group;
  const source = { photo, board, look };
  try {
    const target = group.flatMap((one) => one.targets);
    const query = { model: model(), method, target, against: asked, same_scale: $("same-scale").checked, ...drawn };
    const answer = await askJson("explain", query, photo, signal);
    if (signal.aborted) return;
    const maps = answer.maps.values();
    for (const { key, targets, others, rivals, contrasts } of group) {
      const query = { model: model(), method, target: targets, against: others, ...drawn };
      const words = question.contrast(targets, others);
      cards.set(key, card([...maps.take(targets.length)], { ...source, answer, query, rivals, contrasts, words }));
    }
    for (const map of answer.maps) classes.learn([map.target, ...(Array.isArray(map.against) ? map.against : [])]);
  } catch (error) {
    if (signal.aborted) return;
    for (const { key } of group) {
      const told = [make("h4", {}, method.toUpperCase()), make("p", { className: "problem" }, error.message)];
      cards.set(key, make("article", { className: "card failed" }, ...told));
    }
  }
  draw(wanted());
}

function draw(maps) {
  const drawn = groups();
  $("maps").replaceChildren(...drawn.map((targets) => section(targets, maps)));
  if (look.style === "versus" && !drawn.length) {
    $("maps").append(
      make("p", { className: "hint" }, `Versus draws two classes at once. Choose two to explain; ${classes.targets.length} are chosen.`),
    );
  }
}

/** The maps of a class, or of two that are drawn together. */
function section(targets, maps) {
  const rivals = classes.against.filter((index) => targets.length > 1 || index !== targets[0]);
  const contrasts = rivals.length > 0 || question.hasRivals;
  const shares = targets.map((target) => classes.probability(target)).filter((one) => one !== undefined);
  const told = `${shares.map(percent).join(" and ")} ${question.contrast(targets, rivals)}`.trim();
  const found = maps.filter((map) => map.targets.join() === targets.join());
  return make(
    "section",
    { className: contrasts ? "target contrast" : "target" },
    make("h3", {}, `${targets.map((target) => classes.name(target)).join(" or ")} `, make("small", {}, told)),
    make("div", { className: "grid" }, ...found.map(({ key, method }) => cards.get(key) ?? waiting(method))),
  );
}

function waiting(method) {
  const space = make("div", { className: "stack waiting" });
  space.style.setProperty("--shape", `${board.width} / ${board.height}`);
  return make("article", { className: "card", "aria-busy": "true" }, make("h4", {}, method.toUpperCase()), space);
}

async function mask() {
  masking.abort();
  masking = new AbortController();
  $("clear").disabled = board.mask.empty;
  if (board.mask.empty) {
    $("changes").replaceChildren();
    return;
  }
  const query = {
    model: model(),
    region: board.mask.regions(),
    class: [...new Set([...classes.targets, ...classes.against])],
    fill: $("fill").value,
  };
  const { signal } = masking;
  const answer = await askJson("mask", query, photo, signal).catch(fail);
  if (!answer || signal.aborted) return;
  $("changes").replaceChildren(changes(answer));
  $("spoken").textContent = sentence(answer);
}

function listen() {
  const take = (file) => ready.then(() => show(file)).catch(fail);
  $("file").addEventListener("change", (event) => take(event.target.files[0]));
  $("sample").addEventListener("click", async () => {
    const sample = await (await fetch("/page/cat_and_coffee.jpg")).blob();
    take(new File([sample], "cat_and_coffee.jpg", { type: sample.type }));
  });
  for (const kind of ["dragenter", "dragover"]) {
    document.addEventListener(kind, (event) => {
      event.preventDefault();
      document.body.classList.add("dropping");
    });
  }
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) document.body.classList.remove("dropping");
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("dropping");
    take(event.dataTransfer.files[0]);
  });
  document.addEventListener("paste", (event) => take(event.clipboardData?.files[0]));
  $("model").addEventListener("change", () => {
    running.abort();
    ready = loadLabels();
    take(photo);
  });
  $("size").addEventListener("input", ({ target }) => ($("size-value").textContent = `${target.value} %`));
  $("same-scale").addEventListener("change", () => soon());
  $("fill").addEventListener("change", () => mask());
  $("clear").addEventListener("click", () => {
    board.mask.clear();
    board.drawMask();
    mask();
  });
  $("brush").hidden = navigator.maxTouchPoints === 0;
  $("brush").addEventListener("click", ({ currentTarget }) => {
    const on = document.body.classList.toggle("brushing");
    currentTarget.setAttribute("aria-pressed", on);
  });
}

ready = start();
ready.catch(fail);
listen();
