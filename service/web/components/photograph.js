// Photographs as cards, and what is written below them.

import { element } from "./elements.js";

export const thumbnail = (id) => `items/${id}/thumbnail`;
export const nameOf = ({ path, label }) => label || path.split("/").at(-1);

// A card that leads to `href`: the thumbnail of an item, its name, and a line or several in small type. `extra` stands in its corner.
export function card(item, { href, detail = "", title = item.path, extra = [] }) {
  return element("li", { className: "card" },
    element("a", { href, title },
      element("img", { src: thumbnail(item.id), alt: "", loading: "lazy", width: 160, height: 160 }),
      element("b", { textContent: nameOf(item) }),
      ...[detail].flat().map((textContent) => element("small", { textContent }))),
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

// A neighbour's distance, and where the index is calibrated what it means: lines for a card, and words for its title.
export function nearness({ distance: value, percentile, same_class: chance }, metric) {
  const detail = distance(value, metric);
  const words = [];
  if (Number.isFinite(percentile)) words.push(`Of 100 random pairs of photographs ${digits(percentile, 1)} are as near.`);
  if (!Number.isFinite(chance)) return { detail, words: words.join(" ") };
  const share = `${(100 * chance).toFixed(0)} %`;
  words.push(`Of the photographs at such a distance ${share} are of the query's class, as measured with others.`);
  return { detail: [detail, `${share} same class`], words: words.join(" ") };
}

// So many digits after the point, or two that count where these would be zeros.
export const digits = (value, after) => (value && value < 10 ** -after ? value.toPrecision(2) : value.toFixed(after));
