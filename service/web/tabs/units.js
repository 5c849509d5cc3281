// Units: the first layer's kernels at #/units, and a page for each at #/units/conv1/COLUMN/UNIT.

import { showKernel } from "./units/kernel.js";
import { showKernels } from "./units/kernels.js";

export function show(root, place, context) {
  const [layer = "conv1", column, unit] = place.parts;
  if (layer !== "conv1") throw new Error(`There is no layer ${layer} here; conv1 is.`);
  return unit === undefined ? showKernels(root, place, context) : showKernel(root, column, unit, context);
}
