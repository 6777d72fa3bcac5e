// ---- begin ----

function begin() {
  let waiting;
  $("filters").addEventListener("submit", (event) => event.preventDefault());
  $("filters").addEventListener("input", (event) => {
    if (event.target.id === "opacity") { for (const canvas of document.querySelectorAll("canvas")) if (cells.has(canvas)) draw(canvas); return; }
    clearTimeout(waiting);
    waiting = setTimeout(event.target.name === "method" ? () => turn(0) : filter, event.target.id === "find" ? 150 : 0);
  });
  $("column").addEventListener("input", () => { ends(); turn(0); });
  $("first").addEventListener("click", () => turn(-Infinity));
  $("before").addEventListener("click", () => turn(-1));
  $("after").addEventListener("click", () => turn(1));
  $("last").addEventListener("click", () => turn(Infinity));
  $("close").addEventListener("click", () => $("large").close());
  $("only-off").addEventListener("click", () => browse(null, ""));
  ends();
  filter();
  findings();
}

const data = $("data");
if (data) { inside = JSON.parse(data.textContent); clarpIndex(inside.index); }
