// All kernels of the first layer, in the order that is asked for.

import * as api from "../../api.js";
import { element, field, select } from "../../components/elements.js";
import { failure } from "../../components/states.js";
import { table } from "../../components/table.js";
import { address, queryOf } from "../../router.js";
import { FIGURES, nameOf, range, shown } from "./figures.js";
import { withoutAtlas } from "./layers.js";

const DOWNWARDS = new Set(["norm"]);
const COUNTS = { structured: "structured", oriented: "oriented", gabor: "Gabor functions", dead: "dead", duplicates: "duplicates" };
const CHOICES = {  // as the address has them: [text, the choices]
  order: ["order", { index: "as trained", chroma: "chroma", orientation: "orientation", frequency: "frequency", norm: "norm" }],
  scaling: ["scaled", { own: "each by itself", together: "all together" }],
  channel: ["channel", { "": "all", red: "red", green: "green", blue: "blue" }],
};

export async function showKernels(root, { atlas, note }, { parts, query }, { signal, replace }) {
  let figures;
  try {
    figures = await api.twice("filters", {}, signal);
  } catch (error) {
    if (signal.aborted) throw error;
    root.append(failure(error), element("img", { className: "sheet", src: "filters.png", alt: "The first layer's kernels, a column above the other" }));
    return;
  }
  const [heading, counted] = figures.verdict.split(": ");
  const sheet = element("div", { className: "sheet" });
  const files = element("span");
  const draw = () => {
    const chosen = Object.fromEntries(Object.keys(CHOICES).map((name) => [name, query.get(name)]));
    sheet.replaceChildren(...drawn(figures, chosen));
    files.replaceChildren("as ", ...["png", "svg"].flatMap((kind) => [
      element("a", { href: `filters.${kind}?${queryOf({ ...chosen, scale: 10 })}`, textContent: kind.toUpperCase() }), ", "]),
    element("a", { href: "filters", textContent: "JSON" }));
  };
  const controls = Object.entries(CHOICES).map(([name, [text, options]]) => field(text, select(options, query.get(name) ?? Object.keys(options)[0], {
    onchange: ({ target }) => {
      query.set(name, target.value);
      replace("units", parts, query);
      draw();
    },
  })));
  const [kernels, , height, width] = figures.shape;
  root.append(
    element("h3", { textContent: heading }),
    element("p", { className: "quiet", textContent: `${kernels} kernels of ${height} x ${width} x 3: ${counted} `
      + `${figures.columns.length > 1 ? "The first column is above, the second below. " : ""}`
      + "Structured: more than half of a kernel's energy is below 0.25 cycles a pixel." }),
    element("div", { className: "fields" }, ...controls, files),
    sheet,
    element("details", {}, element("summary", { textContent: "In figures, beside white noise" }), inFigures(figures)),
    ...(atlas ? [] : [withoutAtlas(note)]));
  draw();
}

// The kernels are pieces of one picture in order of index, so a change of order needs no other.
function drawn(figures, { order, scaling, channel }) {
  const [width, height] = figures.size;
  const picture = `filters.png?${queryOf({ scaling, channel, scale: 8 })}`;
  const key = order || "index";
  const sign = DOWNWARDS.has(key) ? -1 : 1;
  return figures.columns.map((_, column) => {
    const kernels = figures.kernels.filter((kernel) => kernel.column === column);
    kernels.sort((one, other) => sign * (one[key] - other[key]) || one.index - other.index);
    return element("ol", { "aria-label": `Kernels of column ${column}` }, ...kernels.map((kernel) => {
      const [left, top, right, bottom] = kernel.box;
      const name = nameOf(kernel);
      const link = element("a", { href: address("units", ["conv1", column, kernel.unit]), title: name, "aria-label": name });
      link.style.backgroundImage = `url("${picture}")`;
      link.style.backgroundSize = `${(100 * width) / (right - left)}% ${(100 * height) / (bottom - top)}%`;
      link.style.backgroundPosition = `${(100 * left) / (width - right + left)}% ${(100 * top) / (height - bottom + top)}%`;
      return element("li", {}, link);
    }));
  });
}

function inFigures(figures) {
  const several = figures.columns.length > 1;
  const parts = several ? [...figures.columns, figures.whole] : [figures.whole];
  const heads = several ? [...figures.columns.map((_, i) => `column ${i}`), "both"] : ["all"];
  return table(["", ...heads, "white noise"], [
    ...Object.entries(COUNTS).map(([name, text]) =>
      [text, ...parts.map((part) => `${part.counts[name]} of ${part.kernels}`), shown(figures.noise.shares[name], "%")]),
    ...Object.entries(FIGURES).filter(([name]) => name in figures.whole.means).map(([name, [text, unit]]) =>
      [text, ...parts.map((part) => shown(part.means[name], unit)), range(figures.noise, name)]),
  ], { label: "The kernels in figures, beside white noise" });
}
