// ---- findings: photos behind each sentence, and the clusters of a class ----

const THUMBNAILS = 6;

/** Let the pictures below be those of the units, or all. */
function browse(units, words) {
  only = units && new Set(units);
  $("only").hidden = !units;
  $("only-text").textContent = words;
  filter();
  if (units) { $("browse").scrollIntoView(); $("only-off").focus({ preventScroll: true }); }
}

function browseAll(units, words) {
  const button = element("button", { type: "button", textContent: units.length === 1 ? "Browse this photo" : `Browse all ${units.length} photos` });
  button.setAttribute("aria-label", `${button.textContent}: ${words}`);
  button.addEventListener("click", () => browse(units, words));
  return button;
}

function thumbnails(units, m, words, place) {
  const maps = element("div", { className: "maps" });
  for (const unit of units.slice(0, THUMBNAILS)) {
    const said = `${words}: ${index.id[unit]}; open`;
    maps.append(thumbnail(unit, m, said, index.label[unit].map(named)[0] ?? "", place));
  }
  return maps;
}

/** The mean map of a cluster, a field a pixel, from nothing to its strongest field. */
function meanMap(values, name) {
  const side = Math.round(Math.sqrt(values.length)), canvas = element("canvas", { width: side, height: side, className: "mean" });
  const context = canvas.getContext("2d"), picture = context.createImageData(side, side);
  values.forEach((strength, k) => {
    const from = colour(strength / 255);
    for (let channel = 0; channel < 3; channel++) picture.data[4 * k + channel] = palette[from + channel];
    picture.data[4 * k + 3] = 255;
  });
  context.putImageData(picture, 0, 0);
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", name);
  return canvas;
}

function clusters() {
  const holder = $("clusters"), chosen = index.findings.clusters[$("clustered").value];
  holder.replaceChildren();
  const told = `${chosen.name}, ${index.methods[chosen.method]}`;
  chosen.clusters.forEach((cluster, k) => {
    const words = `cluster ${k + 1} of ${told}`, mean = element("figure", {}, meanMap(cluster.mean, `mean map of ${words}, most evidence ${cluster.place}`), element("figcaption", { textContent: "mean map" }));
    const maps = thumbnails(cluster.units, chosen.method, words);
    maps.querySelector("figcaption").textContent = "prototype";
    maps.prepend(mean);
    holder.append(element("li", { className: "end" }, element("h4", { textContent: `Cluster ${k + 1}: ${cluster.units.length} of ${chosen.clustered} maps, most evidence ${cluster.place}` }), maps, element("p", {}, browseAll(cluster.units, words))));
  });
  if (chosen.outliers.length) {
    const words = `outliers of ${told}`;
    holder.append(element("li", { className: "end" }, element("h4", { textContent: `Outliers: ${chosen.outliers.length}` }), thumbnails(chosen.outliers, chosen.method, words), element("p", {}, browseAll(chosen.outliers, words))));
  }
}

function findings() {
  for (const holder of document.querySelectorAll("[data-finding]")) {
    const { units, method, place, words } = index.findings.photos[holder.dataset.finding];
    if (units.length) holder.append(thumbnails(units, method, words, place), element("p", {}, browseAll(units, words)));
  }
  if (!$("clustered")) return;
  $("clustered").addEventListener("input", clusters);
  clusters();
}

