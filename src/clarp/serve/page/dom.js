// The few lines that replace a framework.

export const $ = (id) => document.getElementById(id);

/** An element with properties (data-... and aria-... are attributes, on... are listeners) and children. */
export function make(tag, properties = {}, ...children) {
  const found = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (name.startsWith("on")) found.addEventListener(name.slice(2), value);
    else if (name.includes("-") || name === "role") found.setAttribute(name, value);
    else found[name] = value;
  }
  found.append(...children);
  return found;
}

export const percent = (share) =>
  share === null ? "NaN" : share > 0 && share < 0.0005 ? "<0.1 %" : `${(100 * share).toFixed(1)} %`;

const RAISED = { "+": "", "-": "⁻", 0: "⁰", 1: "¹", 2: "²", 3: "³", 4: "⁴", 5: "⁵", 6: "⁶", 7: "⁷", 8: "⁸", 9: "⁹" };

/** A number with a sign and three digits. */
export const signed = (value) => {
  if (!Number.isFinite(value)) return "not finite";
  const size = Math.abs(value);
  const text = size !== 0 && (size < 1e-3 || size >= 1e4) ? size.toExponential(2) : size.toPrecision(3);
  return value === 0 ? "0" : (value < 0 ? "−" : "+") + raised(text);
};

/** 1.23e-5 as 1.23×10⁻⁵. */
const raised = (text) => text.replace(/e(.*)/, (_, power) => `×10${[...power].map((one) => RAISED[one]).join("")}`);

export const readable = (label) => label.replaceAll("_", " ");

let fading = 0;

/** Say what goes on; what ends in a full stop is done, and goes after a while. */
export function status(text) {
  clearTimeout(fading);
  $("status").textContent = text;
  if (text.endsWith(".")) fading = setTimeout(() => ($("status").textContent = ""), 5000);
}

export function problem(text) {
  $("problem").hidden = !text;
  $("problem").textContent = text ?? "";
}
