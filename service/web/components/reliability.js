// What distances of the index mean, and how well that is known: a curve, a reliability plot and figures for each measure.

import * as api from "../api.js";
import { lineChart } from "./charts.js";
import { element, figure } from "./elements.js";
import { empty, fill } from "./states.js";
import { table } from "./table.js";

const NAMES = { euclidean: "Euclidean distance", cosine: "Cosine distance", hamming: "Bits of codes" };
const SHOWN = "first 50";
const OTHERS = ["base rate", "raw distance"];  // the others are for programs

// An element that asks for the calibration by itself, where `index` of /info has one.
export function reliability(index, signal) {
  const root = element("section", { "aria-label": "What distances mean" });
  if (index.calibrated) fill(root, signal, async () => shown(await api.get("reports/calibration", {}, signal)));
  else root.append(empty("Nobody has measured what distances mean in this index. ", element("code", { textContent: "python -m indexer.calibrate" }), " does."));
  return root;
}

function shown({ queries, measured_version: version, added, distances }) {
  const since = added ? ` ${added} photographs came since.` : "";
  return [
    element("p", { className: "quiet", textContent: `The probability that a neighbour is of the query's class, measured with ${queries[0] + queries[1]} `
      + `photographs that were neither indexed nor trained on, in version ${version} of the index.${since} Each half of them is measured with the curve that is fitted to the other.` }),
    ...distances.flatMap(ofMeasure),
  ];
}

function ofMeasure({ measure, measurements }) {
  const { bins } = measurements.find(({ pairs }) => pairs === SHOWN) ?? measurements[0];
  const points = bins.map(({ predicted, observed }) => [predicted, observed, `predicted ${percent(predicted)}, observed ${percent(observed)}`]);
  const chart = lineChart({
    title: `${NAMES[measure]}: observed share of the same class over the predicted probability`,
    x: { label: "predicted probability", min: 0, max: 1 }, y: { label: "observed share of the same class", min: 0, max: 1 },
    series: [{ name: SHOWN, points, band: bins.map(({ predicted, interval }) => [predicted, ...interval]), dots: true }],
    diagonal: true,
  });
  const others = OTHERS.filter((name) => name in measurements[0].others);
  const rows = measurements.map(({ pairs, error, interval, floor, brier, others: plain }) =>
    [pairs, `${three(error)} (${three(interval[0])} to ${three(interval[1])})`, three(floor), three(brier), ...others.map((name) => three(plain[name].brier))]);
  return [
    element("h4", { textContent: NAMES[measure] }),
    figure(chart, `Of the ${SHOWN} neighbours. The band is the 95 % interval. On the diagonal the prediction is what is observed.`),
    table(["pairs", "calibration error (95 %)", "by chance alone", "Brier score", ...others.map((name) => `that of the ${name}`)], rows, { label: `Errors by ${NAMES[measure]}` }),
  ];
}

const three = (value) => value.toFixed(3);
const percent = (value) => `${(100 * value).toFixed(0)} %`;
