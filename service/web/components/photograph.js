// Photographs as cards, and what is written below them.

import { element } from "./elements.js";

export const thumbnail = (id) => `items/${id}/thumbnail`;
export const nameOf = ({ path, label }) => label || path.split("/").at(-1);

// A card that leads to `href`: the thumbnail of an item, its name, and a line in small type. `extra` stands in its corner.
export function card(item, { href, detail = "", title = item.path, extra = [] }) {
  return element("li", { className: "card" },
    element("a", { href, title },
      element("img", { src: thumbnail(item.id), alt: "", loading: "lazy", width: 160, height: 160 }),
      element("b", { textContent: nameOf(item) }),
      element("small", { textContent: detail })),
    extra.length > 0 && element("span", { className: "corner" }, ...extra));
}

export const cards = (label, ...made) => element("ul", { className: "cards", "aria-label": label }, ...made);

// Classes with their probabilities, as bars.
export function classList(classes) {
  return element("ol", { className: "classes", "aria-label": "Classes" }, ...classes.map((entry) => {
    const share = (100 * entry.probability).toFixed(1);
    const row = element("li", {}, element("span", { textContent: entry.class }), element("span", { textContent: `${share} %` }));
    row.style.setProperty("--share", `${share}%`);
    return row;
  }));
}

export function distance(value, metric) {
  if (value === undefined) return "";
  if (metric === "hamming") return value === 1 ? "1 bit" : `${value} bits`;
  if (metric === "cosine") return `distance (cosine) ${digits(value, 3)}`;
  return `distance ${digits(value, 1)}`;
}

// So many digits after the point, or two that count where these would be zeros.
export const digits = (value, after) => (value && value < 10 ** -after ? value.toPrecision(2) : value.toFixed(after));
