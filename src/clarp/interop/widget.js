// Buttons for classes: the first that is clicked is explained, the second is what it is contrasted with.
function render({ model, el }) {
  const image = document.createElement("img");
  image.style.maxWidth = "100%";
  const caption = document.createElement("p");
  caption.setAttribute("aria-live", "polite");
  const list = document.createElement("div");
  list.setAttribute("role", "group");
  list.setAttribute("aria-label", "Click a class to explain it, then another to contrast it with");
  const buttons = model.get("classes").map(({ index, label, probability }) => {
    const button = document.createElement("button");
    button.textContent = `${label} (${(100 * probability).toFixed(1)}%)`;
    button.style.margin = "2px";
    button.addEventListener("click", () => {
      const chosen = model.get("chosen");
      const rest = chosen.filter((one) => one !== index);
      model.set("chosen", rest.length < chosen.length ? rest : [...chosen.slice(0, 1), index]);
      model.save_changes();
    });
    list.append(button);
    return { button, index };
  });
  const draw = () => {
    const chosen = model.get("chosen");
    image.src = model.get("picture");
    image.alt = caption.textContent = model.get("caption");
    for (const { button, index } of buttons) {
      button.setAttribute("aria-pressed", String(chosen.includes(index)));
      button.style.outline = chosen.includes(index)
        ? `3px solid ${chosen[0] === index ? "#b2182b" : "#2166ac"}`
        : "";
    }
  };
  for (const name of ["chosen", "picture", "caption"]) model.on(`change:${name}`, draw);
  el.append(image, caption, list);
  draw();
}
export default { render };
