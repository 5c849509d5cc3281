// The curves of every perturbation, with the perturbed photographs below, and all figures as a table.

import { lineChart } from "../../components/charts.js";
import { element, figure } from "../../components/elements.js";
import { table } from "../../components/table.js";

const share = (value) => `${Math.round(100 * value)} %`;

export const MEASURES = {
  angle: { text: "angle of FC7, degrees", axis: "degrees", shown: (value) => `${value.toFixed(1)}\u00b0`, still: 0 },
  l2: { text: "distance of FC7, as a share of its length", axis: "share of its length", shown: (value) => value.toFixed(2), still: 0 },
  bits: { text: "bits that flip of the code", axis: "bits", shown: (value) => `${Math.round(value)} bits`, still: 0 },
  overlap: { text: "share of the ten neighbours that stays", axis: "share that stays", shown: share, still: 1 },
};
const NAMES = {
  gain: "Gain", bias: "Bias", colour: "Colour", mirror: "Mirror", shift: "Shift", scale: "Scale", turn: "Turn", jpeg: "JPEG", blur: "Blur",
};
const DISTANCES = { same: "two of one class", other: "two of different classes" };

// One part for each perturbation: by the photograph's `answer`, the collection's `report`, or both.
export function perturbations(measure, answer, report) {
  const curves = (answer ?? report.networks).curves;
  return curves.map((curve, i) => {
    const whole = report?.networks.curves[i];
    const name = `${NAMES[curve.kind] ?? curve.kind}: ${curve.unit}`;
    return element("section", {},
      element("h3", { textContent: name }),
      lineChart({
        title: `${name}. ${MEASURES[measure].text}`,
        x: { label: curve.unit },
        y: { label: MEASURES[measure].axis, min: 0, max: measure === "overlap" ? 1 : undefined },
        series: seriesOf(measure, answer && curve, whole, report?.networks.distances[measure]),
      }),
      answer && strip(curve, measure));
  });
}

function seriesOf(measure, curve, whole, distances) {
  const { shown, still } = MEASURES[measure];
  const among = (points, { identity }, value) => [...points, [identity, ...value]].sort(([a], [b]) => a - b);
  const series = [];
  if (curve) {
    const points = among(curve.points.map((point) => [point.level, point[measure]]), curve, [still]);
    series.push({ name: "this photograph", points: titled(points, shown) });
  }
  const rows = whole?.points.map((point) => [point.level, point.measures[measure]]).filter(([, found]) => found) ?? [];
  if (rows.length) {
    series.push({
      name: "the collection",
      points: titled(among(rows.map(([level, found]) => [level, found.mean]), whole, [still]), shown),
      band: among(rows.map(([level, found]) => [level, ...found.photographs]), whole, [still, still]),
    });
  }
  const levels = (curve ?? whole).points.map(({ level }) => level).concat((curve ?? whole).identity);
  for (const [kind, name] of Object.entries(DISTANCES)) {
    const value = distances?.[kind];
    if (Number.isFinite(value)) series.push({ name, dashed: true, points: titled([Math.min(...levels), Math.max(...levels)].map((level) => [level, value]), shown) });
  }
  return series;
}

const titled = (points, shown) => points.map(([level, value]) => [level, value, `${level}: ${shown(value)}`]);

// The perturbed photographs in the order of their levels, with how far each has moved.
function strip(curve, measure) {
  const pictured = curve.points.filter(({ picture }) => picture);
  const label = `${NAMES[curve.kind] ?? curve.kind}: the photograph at each level`;
  return element("ul", { className: "strip", "aria-label": label, tabIndex: 0 }, ...pictured.map((point) => {
    const alt = `${curve.kind} ${point.level} ${curve.unit}`;
    const image = element("img", { src: point.picture, alt, width: 96, height: 96 });
    const clipped = point.clipped >= 0.005 ? `, ${share(point.clipped)} clipped` : "";
    return element("li", {}, figure(image, `${point.level}: ${MEASURES[measure].shown(point[measure])}${clipped}`));
  }));
}

export function wholeTable(answer, report) {
  const curves = (answer ?? report.networks).curves;
  const names = Object.keys(MEASURES);
  const value = (point, measure) => (answer ? point[measure] : point.measures[measure]?.mean);
  const rows = curves.flatMap((curve) => curve.points.map((point) => [
    `${NAMES[curve.kind] ?? curve.kind}, ${point.level} ${curve.unit}`, share(point.clipped),
    ...names.map((measure) => (Number.isFinite(value(point, measure)) ? MEASURES[measure].shown(value(point, measure)) : "")),
  ]));
  const heads = ["perturbation", "clipped", "angle", "distance", "code", "neighbours that stay"];
  return element("details", {},
    element("summary", { textContent: `All figures of ${answer ? "this photograph" : "the collection"}` }),
    table(heads, rows, { label: "All figures" }));
}
