// Units: a layer's at #/units/LAYER/COLUMN, and a page for each at #/units/LAYER/COLUMN/UNIT. #/units/conv1 is all kernels of the first layer.

import * as api from "../api.js";
import { showGrid } from "./units/grid.js";
import { showKernels } from "./units/kernels.js";
import { layerBar } from "./units/layers.js";
import { showUnit } from "./units/unit.js";

export async function show(root, place, context) {
  const [name = "conv1", column, unit] = place.parts;
  const answer = await api.twice("units", {}, context.signal);
  const layer = answer.layers.find((one) => one.layer === name);
  if (!layer) throw new Error(`There is no layer ${name} here; ${answer.layers.map((one) => one.layer).join(", ")} are.`);
  root.append(layerBar(answer, name, column));
  if (unit !== undefined) return showUnit(root, layer, column, unit, context);
  if (name === "conv1" && column === undefined) return showKernels(root, answer, place, context);
  return showGrid(root, answer, layer, column ?? "0", place, context);
}
