// The few lines that replace a framework.

export const $ = (id) => document.getElementById(id);

/** An element with properties (data-... and aria-... are attributes) and children. */
export function make(tag, properties = {}, ...children) {
  const found = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-")) found.setAttribute(name, value);
    else found[name] = value;
  }
  found.append(...children);
  return found;
}

const SHOWN = 8000; // milliseconds
let fading = 0;

/** Say what goes on; what ends in a full stop is done, and goes after a while. */
export function status(text) {
  clearTimeout(fading);
  $("status").textContent = text;
  if (text.endsWith(".")) fading = setTimeout(() => ($("status").textContent = ""), SHOWN);
}

/** Say what went wrong, or nothing. */
export function problem(text) {
  $("problem").hidden = !text;
  $("problem").textContent = text;
}
