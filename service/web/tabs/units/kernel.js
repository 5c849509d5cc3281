// One kernel of the first layer: its picture, its spectrum and its figures.

import * as api from "../../api.js";
import { element, figure } from "../../components/elements.js";
import { table } from "../../components/table.js";
import { address } from "../../router.js";
import { FIGURES, nameOf, range, shown } from "./figures.js";

const at = ({ column, unit }, part) => `units/conv1/${column}/${unit}${part}`;

// What shows the kernel of an answer.
export async function kernelParts({ kernel, noise }, signal) {
  const name = nameOf(kernel);
  return [
    element("p", { textContent: kind(kernel) }),
    await twin(kernel, signal),
    element("div", { className: "pictures" },
      figure(element("img", { src: at(kernel, ".png"), alt: `${name}: its weights` }), "Its weights about mid-grey."),
      figure(element("img", { src: at(kernel, "/spectrum.png?scale=3"), alt: `${name}: its spectrum` }),
        "Its spectrum, frequency 0 in the middle. Rings: 0.25 and 0.5 cycles a pixel.")),
    element("p", { textContent: gabor(kernel) }),
    element("details", {}, element("summary", { textContent: "In figures, beside white noise" }),
      table(["", "this kernel", "white noise"],
        Object.entries(FIGURES).map(([key, [text, one]]) => [text, shown(kernel[key], one), range(noise, key)]), { label: `${name} in figures` })),
  ].filter(Boolean);
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

// A link to the kernel much like it.
async function twin(kernel, signal) {
  if (kernel.duplicate_of === null || kernel.duplicate_of === undefined) return null;
  const { kernels } = await api.twice("filters", {}, signal);
  const like = kernels[kernel.duplicate_of];
  return element("p", {}, "Much like ",
    element("a", { href: address("units", ["conv1", like.column, like.unit]), textContent: `kernel ${like.unit} of column ${like.column}` }), ".");
}
