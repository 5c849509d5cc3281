// The first layer: all kernels in the order that is asked for, and a page for each at #/units/conv1/COLUMN/UNIT.

import * as api from "./api.js";
import { element } from "./view.js";

const at = (id) => document.getElementById(id);
const PAGE = /^#\/units\/conv1\/(\d+)\/(\d+)$/;
const BACK = "#/units/conv1";
const DOWNWARDS = new Set(["norm"]);
const FIGURES = {  // names as the service has them: what people read, and its unit
  chroma: ["chroma: energy that is colour", "%"],
  low_share: ["energy below 0.25 cycles a pixel", "%"],
  dc_share: ["energy at frequency 0", "%"],
  participation: ["spectral participation", "%"],
  selectivity: ["orientation selectivity", ""],
  orientation: ["orientation, degrees from horizontal", ""],
  frequency: ["frequency, cycles a pixel", ""],
  bandwidth: ["bandwidth, octaves", ""],
  explained: ["energy that a Gabor function explains", "%"],
  norm: ["norm", ""],
};
const COUNTS = {
  structured: "structured", oriented: "oriented", gabor: "Gabor functions", dead: "dead", duplicates: "duplicates",
};
let figures = null;
let trigger = null;  // the kernel whose page was opened, to go back to

function shown(value, unit) {
  if (value === null || value === undefined) return "\u2013";
  if (unit === "%") return `${(100 * value).toFixed(1)} %`;
  return `${Number(value.toPrecision(3))}${unit}`;
}

function range(noise, name) {
  const spread = noise.ranges[name];
  if (!spread) return "\u2013";
  const [, unit] = FIGURES[name];
  return `${shown(spread.mean, unit)} (${shown(spread.low, unit)} to ${shown(spread.high, unit)})`;
}

function table(target, heads, rows) {
  at(target).replaceChildren(
    element("thead", {}, element("tr", {}, ...heads.map((text) => element("th", { scope: "col", textContent: text })))),
    element("tbody", {}, ...rows.map(([name, ...cells]) => element("tr", {},
      element("th", { scope: "row", textContent: name }), ...cells.map((text) => element("td", { textContent: text }))))),
  );
}

function query(more) {
  const chosen = { order: at("order").value, scaling: at("scaling").value, channel: at("channel").value, ...more };
  return new URLSearchParams(Object.entries(chosen).filter(([, value]) => value !== ""));
}

// The kernels are pieces of one picture in order of index, so a change of order needs no other.
function drawKernels() {
  const [width, height] = figures.size;
  const sheet = `filters.png?${query({ order: "", scale: 8 })}`;
  const order = at("order").value;
  const sign = DOWNWARDS.has(order) ? -1 : 1;
  at("kernels").replaceChildren(...figures.columns.map((_, column) => {
    const kernels = figures.kernels.filter((kernel) => kernel.column === column);
    kernels.sort((one, other) => sign * (one[order] - other[order]) || one.index - other.index);
    return element("ol", { ariaLabel: `Kernels of column ${column}` }, ...kernels.map((kernel) => {
      const [left, top, right, bottom] = kernel.box;
      const name = `Kernel ${kernel.unit} of column ${column}`;
      const link = element("a", { href: `#/units/conv1/${column}/${kernel.unit}`, title: name, ariaLabel: name });
      link.style.backgroundImage = `url("${sheet}")`;
      link.style.backgroundSize = `${(100 * width) / (right - left)}% ${(100 * height) / (bottom - top)}%`;
      link.style.backgroundPosition = `${(100 * left) / (width - right + left)}% ${(100 * top) / (height - bottom + top)}%`;
      return element("li", {}, link);
    }));
  }));
  at("png").href = `filters.png?${query({ scale: 10 })}`;
  at("svg").href = `filters.svg?${query({ scale: 10 })}`;
}

function summarise() {
  const [kernels, , height, width] = figures.shape;
  const [heading, counted] = figures.verdict.split(": ");
  at("verdict").textContent = heading;
  const line = figures.columns.length > 1 ? "The first column is above, the second below." : "";
  at("columns").textContent = `${kernels} kernels of ${height} x ${width} x 3: ${counted} ${line} `
    + "Structured: more than half of a kernel's energy is below 0.25 cycles a pixel.";
  const parts = figures.columns.length > 1 ? [...figures.columns, figures.whole] : [figures.whole];
  const heads = figures.columns.length > 1 ? [...figures.columns.map((_, i) => `column ${i}`), "both"] : ["all"];
  table("figures", ["", ...heads, "white noise"], [
    ...Object.entries(COUNTS).map(([name, text]) =>
      [text, ...parts.map((part) => `${part.counts[name]} of ${part.kernels}`), shown(figures.noise.shares[name], "%")]),
    ...Object.entries(FIGURES).filter(([name]) => name in figures.whole.means).map(([name, [text, unit]]) =>
      [text, ...parts.map((part) => shown(part.means[name], unit)), range(figures.noise, name)]),
  ]);
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

function showUnit(answer) {
  const { kernel, noise } = answer;
  const name = `Kernel ${kernel.unit} of column ${kernel.column}`;
  at("unit-title").textContent = name;
  document.title = `${name} - FC7`;
  Object.assign(at("unit-picture"), { src: api.unitPath(kernel.column, kernel.unit, ".png"), alt: `${name}: its weights` });
  Object.assign(at("unit-spectrum"), { src: api.unitPath(kernel.column, kernel.unit, "/spectrum.png?scale=3"), alt: `${name}: its spectrum` });
  at("unit-kind").textContent = kind(kernel);
  table("unit-figures", ["", "this kernel", "white noise"],
    Object.entries(FIGURES).map(([figure, [text, unit]]) => [text, shown(kernel[figure], unit), range(noise, figure)]));
  const twin = figures?.kernels[kernel.duplicate_of];
  at("unit-twin").hidden = !twin;
  if (twin) {
    at("unit-twin").replaceChildren("Much like ", element("a", {
      href: `#/units/conv1/${twin.column}/${twin.unit}`, textContent: `kernel ${twin.unit} of column ${twin.column}`,
    }), ".");
  }
  const fit = kernel.gabor;
  at("unit-gabor").textContent = fit
    ? `The nearest Gabor function explains ${shown(fit.explained, "%")}: centre ${fit.x.toFixed(1)} right and ${fit.y.toFixed(1)} down, `
      + `${shown(fit.frequency, " cycles a pixel")}, bars at ${fit.orientation.toFixed(0)}\u00b0, envelope `
      + `${fit.width.toFixed(1)} across them and ${fit.length.toFixed(1)} along (standard deviations, pixels), `
      + ["red", "green", "blue"].map((c, i) => `${c} ${shown(fit.amplitudes[i], "")} at ${fit.phases[i].toFixed(0)}\u00b0`).join(", ") + "."
    : `No Gabor function explains half of its energy; the nearest explains ${shown(kernel.explained, "%")}.`;
  const others = figures?.kernels ?? [];
  for (const [id, step] of [["unit-before", -1], ["unit-after", 1]]) {
    const other = others[kernel.index + step];
    at(id).hidden = !other;
    if (other) at(id).href = `#/units/conv1/${other.column}/${other.unit}`;
  }
}

async function showPhotographs(column, unit) {
  at("unit-photographs").replaceChildren();
  at("unit-seen").textContent = "Looking for what excites it most \u2026";
  try {
    const { photographs, seen, of } = await api.unitPhotographs(column, unit);
    if (location.hash !== `#/units/conv1/${column}/${unit}`) return;
    at("unit-seen").textContent = `What excites it most, of ${seen === of ? "all" : `${seen} of`} ${of} photographs, by their thumbnails. `
      + "The square is the kernel's window.";
    at("unit-photographs").replaceChildren(...photographs.map((found) => {
      const [left, top, right, bottom] = found.box;
      const mark = element("span", { className: "mark" });
      Object.assign(mark.style, { left: `${100 * left}%`, top: `${100 * top}%`, width: `${100 * (right - left)}%`, height: `${100 * (bottom - top)}%` });
      const crop = element("span", { className: "crop" });
      const share = Math.min(1, 4 * (right - left));
      const [x, y] = [(left + right) / 2, (top + bottom) / 2].map((middle) => Math.min(1 - share, Math.max(0, middle - share / 2)));
      Object.assign(crop.style, {
        backgroundImage: `url("items/${found.id}/thumbnail")`,
        backgroundSize: `${100 / share}%`,
        backgroundPosition: `${(100 * x) / (1 - share)}% ${(100 * y) / (1 - share)}%`,
      });
      return element("li", {}, element("a", { href: `items/${found.id}/image`, title: found.path },
        element("span", { className: "whole" }, element("img", { src: `items/${found.id}/thumbnail`, alt: found.label || found.path }), mark), crop,
        element("small", { textContent: `${found.label || found.path}, ${shown(found.activation, "")}` })));
    }));
  } catch (error) {
    if (location.hash !== `#/units/conv1/${column}/${unit}`) return;
    at("unit-seen").textContent = `What excites it most cannot be shown: ${error.message}`;
  }
}

async function route() {
  const found = location.hash.match(PAGE);
  const wasUnit = !at("unit").hidden;
  for (const id of ["ask", "found", "layer"]) at(id).hidden = Boolean(found);
  at("unit").hidden = !found;
  at("unit-problem").hidden = true;
  at("unit-parts").hidden = true;
  if (!found) {
    document.title = "FC7";
    if (location.hash === BACK) {
      at("layer").scrollIntoView();
      at("kernels").querySelector(`a[href="${trigger}"]`)?.focus();
    }
    return;
  }
  trigger = location.hash;
  try {
    const answer = await api.unit(found[1], found[2]);
    if (location.hash !== found[0]) return;
    showUnit(answer);
    at("unit-parts").hidden = false;
    showPhotographs(found[1], found[2]);
  } catch (error) {
    if (location.hash !== found[0]) return;
    at("unit-title").textContent = "This kernel cannot be shown";
    at("unit-problem").textContent = error.message;
    at("unit-problem").hidden = false;
  }
  if (!wasUnit) at("unit-title").focus();
}

export async function start() {
  window.addEventListener("hashchange", route);
  for (const option of ["order", "scaling", "channel"]) at(option).addEventListener("change", () => figures && drawKernels());
  try {
    figures = await api.filters();
    summarise();
    drawKernels();
  } catch (error) {
    at("columns").textContent = `The kernels have no figures: ${error.message}`;
    at("kernels").replaceChildren(element("img", { src: "filters.png", alt: "The first layer's kernels, a column above the other" }));
  }
  await route();
}
