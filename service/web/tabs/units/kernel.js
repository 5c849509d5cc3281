// One kernel of the first layer: its picture, its figures, and the photographs that excite it most.

import * as api from "../../api.js";
import { element, figure } from "../../components/elements.js";
import { nameOf as nameOfItem, thumbnail } from "../../components/photograph.js";
import { failure, loading } from "../../components/states.js";
import { table } from "../../components/table.js";
import { address } from "../../router.js";
import { FIGURES, nameOf, range, shown } from "./figures.js";

const at = (column, unit, part) => `units/conv1/${column}/${unit}${part}`;
const pageOf = ({ column, unit }) => address("units", ["conv1", column, unit]);

export async function showKernel(root, column, unit, { signal, title }) {
  const leaves = element("p", { className: "leaves" }, element("a", { href: address("units"), textContent: "All kernels" }));
  root.append(leaves);
  const { kernel, noise } = await api.twice(at(column, unit, ""), {}, signal);
  const name = nameOf(kernel);
  title(name);
  const twin = element("p", { hidden: true });
  const seen = element("div");
  root.append(
    element("p", { textContent: kind(kernel) }), twin,
    element("div", { className: "pictures" },
      figure(element("img", { src: at(column, unit, ".png"), alt: `${name}: its weights` }), "Its weights about mid-grey."),
      figure(element("img", { src: at(column, unit, "/spectrum.png?scale=3"), alt: `${name}: its spectrum` }),
        "Its spectrum, frequency 0 in the middle. Rings: 0.25 and 0.5 cycles a pixel.")),
    element("p", { textContent: gabor(kernel) }),
    table(["", "this kernel", "white noise"],
      Object.entries(FIGURES).map(([key, [text, one]]) => [text, shown(kernel[key], one), range(noise, key)]), { label: `${name} in figures` }),
    seen);
  await Promise.all([showOthers(kernel, leaves, twin, signal), showPhotographs(column, unit, seen, signal)]);
}

function kind(kernel) {
  if (kernel.dead) return "Dead: its norm is below 0.2 of the median.";
  if (!kernel.structured) {
    const fine = "most of its energy is above 0.25 cycles a pixel";
    return kernel.gabor ? `A fine grating: ${fine}, and a Gabor function fits.` : `Without structure: ${fine}, as in white noise.`;
  }
  const colour = kernel.chroma > 0.5 ? "mostly of colour" : "mostly of brightness";
  return `Structured, ${colour}, ${kernel.oriented ? "of one orientation" : "of no one orientation"}.`;
}

function gabor({ gabor: fit, explained }) {
  if (!fit) return `No Gabor function explains half of its energy; the nearest explains ${shown(explained, "%")}.`;
  return `The nearest Gabor function explains ${shown(fit.explained, "%")}: centre ${fit.x.toFixed(1)} right and ${fit.y.toFixed(1)} down, `
    + `${shown(fit.frequency, " cycles a pixel")}, bars at ${fit.orientation.toFixed(0)}\u00b0, envelope `
    + `${fit.width.toFixed(1)} across them and ${fit.length.toFixed(1)} along (standard deviations, pixels), `
    + `${["red", "green", "blue"].map((c, i) => `${c} ${shown(fit.amplitudes[i], "")} at ${fit.phases[i].toFixed(0)}\u00b0`).join(", ")}.`;
}

// Links to the kernels before and after it, and to the one much like it.
async function showOthers(kernel, leaves, twin, signal) {
  const { kernels } = await api.twice("filters", {}, signal);
  for (const [text, step] of [["previous", -1], ["next", 1]]) {
    const other = kernels[kernel.index + step];
    if (other) leaves.append(" ", element("a", { href: pageOf(other), textContent: text }));
  }
  const like = kernels[kernel.duplicate_of];
  if (!like) return;
  twin.hidden = false;
  twin.append("Much like ", element("a", { href: pageOf(like), textContent: `kernel ${like.unit} of column ${like.column}` }), ".");
}

async function showPhotographs(column, unit, root, signal) {
  root.replaceChildren(loading("Looking for what excites it most \u2026"));
  try {
    const { photographs, seen, of } = await api.twice(at(column, unit, "/photographs"), {}, signal);
    root.replaceChildren(
      element("p", { textContent: `What excites it most, of ${seen === of ? "all" : `${seen} of`} ${of} photographs, by their thumbnails. `
        + "The square is the kernel's window." }),
      element("ul", { className: "cards", "aria-label": "The most exciting photographs" }, ...photographs.map(photograph)));
  } catch (error) {
    if (signal.aborted) return;
    root.replaceChildren(failure(new Error(`What excites it most cannot be shown: ${error.message}`)));
  }
}

function photograph(found) {
  const [left, top, right, bottom] = found.box;
  const window = element("span", { className: "window" });
  Object.assign(window.style, { left: `${100 * left}%`, top: `${100 * top}%`, width: `${100 * (right - left)}%`, height: `${100 * (bottom - top)}%` });
  const crop = element("span", { className: "crop" });
  const share = Math.min(0.99, 4 * (right - left));
  const [x, y] = [(left + right) / 2, (top + bottom) / 2].map((middle) => Math.min(1 - share, Math.max(0, middle - share / 2)));
  Object.assign(crop.style, {
    backgroundImage: `url("${thumbnail(found.id)}")`,
    backgroundSize: `${100 / share}%`,
    backgroundPosition: `${(100 * x) / (1 - share)}% ${(100 * y) / (1 - share)}%`,
  });
  return element("li", { className: "card" }, element("a", { href: `items/${found.id}/image`, title: found.path },
    element("span", { className: "whole" }, element("img", { src: thumbnail(found.id), alt: "" }), window), crop,
    element("small", { textContent: `${nameOfItem(found)}, ${shown(found.activation, "")}` })));
}
