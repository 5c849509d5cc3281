// A photograph with a heat map over it, which can be taken off.

import { element } from "./elements.js";
import { digits } from "./photograph.js";

const extremes = ({ grid }) => {
  const worths = grid.flat();
  return [Math.max(...worths), Math.min(...worths)];
};

const cell = ({ grid }, worth) => {
  const at = grid.flat().indexOf(worth);
  const [row, column] = [Math.floor(at / grid.length), at % grid.length];
  const third = (place, names) => names[Math.min(2, Math.floor((3 * place) / grid.length))];
  const [down, across] = [third(row, ["top", "middle", "bottom"]), third(column, ["left", "centre", "right"])];
  return down === "middle" ? (across === "centre" ? "in the middle" : `at the ${across}`) : `at the ${down} ${across}`;
};

// `heat` is as the service answers it; `name` is the photograph's, `worth` what a cell is worth, in words.
export function heated(heat, { name, worth, box = null, size = heat.grid.length }) {
  const [most, least] = extremes(heat);
  const told = `${name}: ${worth} most ${cell(heat, most)}, where a cell of ${size} x ${size} is worth ${digits(most, 3)}; `
    + `least ${cell(heat, least)}, where it is worth ${digits(least, 3)}`;
  const overlay = element("img", { src: heat.overlay, alt: "", className: "overlay" });
  const shown = element("div", { className: "pile" },
    element("img", { src: heat.photograph, alt: told, width: 256, height: 256 }), overlay, box && outline(box));
  const show = element("input", { type: "checkbox", checked: true, onchange: () => { overlay.hidden = !show.checked; } });
  return element("figure", { className: "heat" }, shown,
    element("figcaption", {}, element("label", {}, show, ` heat over ${name}`)));
}

function outline([left, top, right, bottom]) {
  const made = element("span", { className: "outline" });
  Object.assign(made.style, { left: `${100 * left}%`, top: `${100 * top}%`, width: `${100 * (right - left)}%`, height: `${100 * (bottom - top)}%` });
  return made;
}

export const legend = (warm, cold) => element("ul", { className: "legend" },
  element("li", {}, element("span", { className: "swatch warm" }), warm),
  element("li", {}, element("span", { className: "swatch cold" }), cold));
