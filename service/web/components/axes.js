// Scales and axes of the charts.

import { drawn } from "./elements.js";

export const WIDTH = 640;
export const HEIGHT = 360;
const LEFT = 62;
const RIGHT = 14;
const TOP = 12;
const BOTTOM = 48;

const finite = (values) => values.filter((value) => Number.isFinite(value));

// 1, 2 or 5 times a power of ten, so that about `count` of them lie between.
function step(low, high, count) {
  const raw = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  return power * [1, 2, 5, 10].find((times) => times * power >= raw * 0.999);
}

export const shortly = (value) => String(Number(value.toPrecision(6)));

// From values to a position between two ends: { at, ticks, low, high }. `log` is of base 10; a bare axis has no ticks.
export function scale(values, [from, to], { log = false, min, max, count = 6, bare = false } = {}) {
  const known = finite(log ? values.filter((value) => value > 0) : values);
  let low = min ?? Math.min(...known);
  let high = max ?? Math.max(...known);
  if (!known.length && (min === undefined || max === undefined)) [low, high] = log ? [1, 10] : [0, 1];
  if (low === high) [low, high] = log ? [low / 2, high * 2] : [low - 0.5, high + 0.5];
  const ticks = [];
  if (log) {
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) ticks.push(10 ** power);
  } else {
    const by = step(low, high, count);
    if (min === undefined) low = Math.floor(low / by + 1e-9) * by;
    if (max === undefined) high = Math.ceil(high / by - 1e-9) * by;
    for (let i = Math.ceil(low / by - 1e-9); i * by <= high + 1e-9 * by; i++) ticks.push(i * by);
  }
  const placed = log ? Math.log10 : (value) => value;
  const share = (value) => (placed(value) - placed(low)) / (placed(high) - placed(low));
  const shown = bare ? [] : ticks.filter((tick) => tick >= low * 0.999 && tick <= high * 1.001 || !log);
  return { at: (value) => from + share(value) * (to - from), ticks: shown, low, high };
}

// A drawing with two axes: { svg, x, y }. `xs` and `ys` are all values; the options of each axis are those of `scale` and `label`.
export function axes(title, xs, ys, xOptions, yOptions, height = HEIGHT) {
  const x = scale(xs, [LEFT, WIDTH - RIGHT], xOptions);
  const y = scale(ys, [height - BOTTOM, TOP], yOptions);
  const svg = canvas(title, height);
  for (const tick of x.ticks) {
    svg.append(drawn("line", { class: "grid", x1: x.at(tick), x2: x.at(tick), y1: TOP, y2: height - BOTTOM }),
      drawn("text", { x: x.at(tick), y: height - BOTTOM + 16, "text-anchor": "middle" }, shortly(tick)));
  }
  for (const tick of y.ticks) {
    svg.append(drawn("line", { class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: y.at(tick), y2: y.at(tick) }),
      drawn("text", { x: LEFT - 6, y: y.at(tick) + 4, "text-anchor": "end" }, shortly(tick)));
  }
  svg.append(drawn("text", { class: "axis", x: (LEFT + WIDTH - RIGHT) / 2, y: height - 8, "text-anchor": "middle" }, xOptions.label ?? ""),
    drawn("text", { class: "axis", transform: `translate(14 ${(TOP + height - BOTTOM) / 2}) rotate(-90)`, "text-anchor": "middle" }, yOptions.label ?? ""));
  return { svg, x, y };
}

export const canvas = (title, height = HEIGHT) => drawn("svg", { class: "chart", viewBox: `0 0 ${WIDTH} ${height}`, role: "img", "aria-label": title });
