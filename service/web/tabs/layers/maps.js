// The maps of a layer, column by column: all of them as a picture, and the strongest.

import { element, field, select } from "../../components/elements.js";
import { digits } from "../../components/photograph.js";
import { fill } from "../../components/states.js";
import { ask, picture } from "../../components/subject.js";
import { facts } from "../../components/table.js";
import { address } from "../../router.js";
import { piece } from "./piece.js";

const LAYERS = ["conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7"];
const SCALINGS = { own: "each map by its own largest", together: "all by the largest" };
const STRONGEST = 12;
const WIDEST = 900;  // pixels, that a picture is enlarged to at most
const share = (value) => `${(100 * value).toFixed(1)} %`;

export function maps(photograph, query, info, changed, signal) {
  const content = element("div");
  const layer = select(Object.fromEntries(LAYERS.map((name) => [name, name])), query.get("layer") ?? "conv1");
  const scaling = select(SCALINGS, query.get("scaling") ?? "own");
  const draw = () => fill(content, signal, async () => {
    const answer = await ask("activations", { layer: layer.value, top: STRONGEST }, photograph, signal);
    return Promise.all(answer.columns.map((column) => ofColumn(photograph, answer, column, scaling.value, signal)));
  });
  for (const [name, control] of Object.entries({ layer, scaling })) {
    control.onchange = () => {
      query.set(name, control.value);
      changed();
      draw();
    };
  }
  draw();
  return element("div", {}, element("div", { className: "fields" }, field("Layer", layer), field("Brightness", scaling)), content);
}

async function ofColumn(photograph, { layer, columns }, column, scaling, signal) {
  const scale = Math.max(1, Math.min(4, Math.floor(WIDEST / column.size[0])));
  const shown = await picture("activations.png", { layer, column: column.column, scaling, scale }, photograph, signal);
  const name = columns.length > 1 ? `${layer}, column ${column.column}` : layer;
  const isMap = column.side > 1;
  const what = isMap ? `maps of ${column.side} x ${column.side}` : "units";
  const unit = (one) => `: ${digits(one.largest, 2)}${isMap ? `, active in ${share(one.active)}` : ""}`;
  return element("section", { "aria-label": name },
    element("h4", { textContent: name }),
    facts([
      [isMap ? "Maps" : "Units", `${column.units}${isMap ? `, of ${column.side} x ${column.side}` : ""}`],
      ["Active", `${share(column.active)} of all values are above 0`],
      ["Silent", `${column.silent} are nowhere above 0`],
      ["Mean", digits(column.mean, 3)],
    ]),
    element("div", { className: "mosaic" }, element("img", { src: shown, alt: `All ${column.units} ${what} of ${name}; black is 0`,
      width: scale * column.size[0], height: scale * column.size[1] })),
    element("ol", { className: isMap ? "strongest" : "strongest values", "aria-label": `The strongest of ${name}` }, ...column.strongest.map((one) =>
      element("li", {}, isMap && piece(shown, column.size, one.box, `the map of unit ${one.unit}`), element("small", {},
        element("a", { href: address("units", [layer, column.column, one.unit]), textContent: `unit ${one.unit}` }), unit(one))))));
}
