// Charts as SVG: lines, dots, bars and intervals. Colours are the style's, one a series, and a mark of its own beside it.

import { axes, canvas, scale, shortly, WIDTH } from "./axes.js";
import { drawn, element } from "./elements.js";

const path = (x, y, points) => points.map(([a, b], i) => `${i ? "L" : "M"}${x.at(a).toFixed(1)} ${y.at(b).toFixed(1)}`).join("");
const tone = (i) => `series tone-${i % 8}`;

function legend(series) {
  const named = series.map(({ name }, i) => [name, i]).filter(([name]) => name);
  if (named.length < 2) return null;
  return element("ul", { className: "legend" }, ...named.map(([name, i]) =>
    element("li", {}, element("span", { className: `swatch tone-${i % 8}` }), name)));
}

const chart = (svg, series) => element("div", { className: "charted" }, svg, legend(series));

// Each series: { name, points: [[x, y], ...], band: [[x, low, high], ...], dots: true for dots alone, dashed }.
// `x` and `y`: { label, log, min, max }. A point's title shows where the pointer rests: [x, y, title].
export function lineChart({ title, x: xOptions = {}, y: yOptions = {}, series, diagonal = false }) {
  const points = series.flatMap((one) => one.points);
  const bands = series.flatMap((one) => one.band ?? []);
  const { svg, x, y } = axes(title, points.map(([a]) => a), [...points.map(([, b]) => b), ...bands.flatMap(([, ...b]) => b)], xOptions, yOptions);
  if (diagonal) svg.append(drawn("path", { class: "diagonal", d: path(x, y, [[x.low, x.low], [x.high, x.high]]) }));
  series.forEach((one, i) => {
    const group = drawn("g", { class: tone(i) });
    if (one.band) group.append(drawn("path", { class: "band", d: `${path(x, y, [...one.band.map(([a, low]) => [a, low]), ...one.band.map(([a, , high]) => [a, high]).reverse()])}Z` }));
    if (!one.dots) group.append(drawn("path", { class: one.dashed ? "line dashed" : "line", d: path(x, y, one.points) }));
    for (const [a, b, text] of one.points) {
      group.append(drawn("circle", { class: "dot", cx: x.at(a), cy: y.at(b), r: one.dots ? 4 : 3 },
        drawn("title", {}, text ?? `${one.name ?? title}: ${a}, ${b}`)));
    }
    svg.append(group);
  });
  return chart(svg, series);
}

// Groups of bars from 0: `groups` are names, each series { name, values } has one a group.
export function barChart({ title, groups, series, y: yOptions = {} }) {
  const values = series.flatMap((one) => one.values);
  const { svg, x, y } = axes(title, [0, groups.length], [0, ...values], { min: 0, max: groups.length, bare: true }, yOptions);
  const room = 0.8 / series.length;
  series.forEach((one, i) => svg.append(drawn("g", { class: tone(i) }, ...one.values.map((value, g) => {
    const [left, right] = [g + 0.1 + i * room, g + 0.1 + (i + 1) * room].map(x.at);
    const [top, bottom] = [Math.max(value, 0), Math.min(value, 0)].map(y.at);
    return drawn("rect", { class: "bar", x: left, y: top, width: right - left - 1, height: Math.max(bottom - top, 0.5) },
      drawn("title", {}, `${groups[g]}${one.name ? `, ${one.name}` : ""}: ${value}`));
  }))));
  const { height } = svg.viewBox.baseVal;
  groups.forEach((name, g) => svg.append(drawn("text", { class: "group", x: x.at(g + 0.5), y: height - 32, "text-anchor": "middle" }, name)));
  return chart(svg, series);
}

// Intervals, one a row: { name, value, low, high, mark, parts }; `mark` is another's figure, `parts` are what the value is the mean of.
export function forestPlot({ title, label, rows, zero = 0, left, right }) {
  const height = 30 * rows.length + 52;
  const svg = canvas(title, height);
  const known = rows.flatMap(({ value, low, high, mark, parts = [] }) => [value, low, high, mark, ...parts]).filter(Number.isFinite);
  const x = scale([zero, ...known], [left, WIDTH - right]);
  for (const tick of x.ticks) {
    svg.append(drawn("line", { class: "grid", x1: x.at(tick), x2: x.at(tick), y1: 4, y2: height - 44 }),
      drawn("text", { x: x.at(tick), y: height - 28, "text-anchor": "middle" }, shortly(tick)));
  }
  svg.append(drawn("line", { class: "diagonal", x1: x.at(zero), x2: x.at(zero), y1: 4, y2: height - 44 }));
  rows.forEach(({ name, value, low, high, mark, parts = [] }, i) => {
    const y = 22 + 30 * i;
    const group = drawn("g", { class: "series tone-0" });
    for (const part of parts) group.append(drawn("circle", { class: "part", cx: x.at(part), cy: y, r: 3 }));
    if (Number.isFinite(low) && Number.isFinite(high)) group.append(drawn("line", { class: "line", x1: x.at(low), x2: x.at(high), y1: y, y2: y }));
    if (Number.isFinite(value)) group.append(drawn("circle", { class: "dot", cx: x.at(value), cy: y, r: 5 }, drawn("title", {}, `${name}: ${value}`)));
    if (Number.isFinite(mark)) {
      const at = x.at(mark);
      group.append(drawn("path", { class: "mark", d: `M${at} ${y - 7}L${at + 6} ${y}L${at} ${y + 7}L${at - 6} ${y}Z` }, drawn("title", {}, `${name}: ${mark}`)));
    }
    svg.append(group, drawn("text", { x: left - 12, y: y + 4, "text-anchor": "end" }, name));
  });
  svg.append(drawn("text", { class: "axis", x: (left + WIDTH - right) / 2, y: height - 8, "text-anchor": "middle" }, label ?? ""));
  return element("div", { className: "charted" }, svg);
}
