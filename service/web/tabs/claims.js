// Claims: what the paper says, measured again at a small size, with seeds and intervals.

import * as api from "../api.js";
import { forestPlot, lineChart } from "../components/charts.js";
import { element } from "../components/elements.js";
import { empty } from "../components/states.js";
import { facts, table } from "../components/table.js";
import { address } from "../router.js";

const SIZES = { quick: "--quick: one seed, a direction and no more", full: "--full", large: "--large", long: "--long" };

const shown = (unit, value) => (value === null ? "-" : unit === "times" ? `${value.toFixed(2)} times` : value.toFixed(2));
const logarithm = (unit, value) => (value === null || unit !== "times" ? value : Math.log2(value));

function differences(claim) {
  return table(["compared", "mean", "95 % interval", "seeds above / below", "published", "could have been seen", ""], claim.rows.map((row) => [
    row.label,
    (row.censored ? "> " : "") + shown(row.unit, row.mean) + (row.p === null ? "" : `, McNemar p ${row.p.toPrecision(2)}`),
    row.low === null ? "-" : `${shown(row.unit, row.low)} to ${shown(row.unit, row.high)}`,
    `${row.positive} / ${row.negative}`,
    shown(row.unit, row.published),
    shown(row.unit, row.detectable) + (row.seeds_for_published === null ? "" : `; ${row.seeds_for_published} seeds for the published`),
    row.verdict + (row.note ? ` (${row.note})` : ""),
  ]), { label: `Differences of ${claim.name}` });
}

function arms(claim) {
  return table(["arm", "rate", "seeds", "error, %", "gap, points"], claim.arms.map(({ name, rate, errors, gaps }) => [
    name, String(rate), String(errors.length), mean(errors), mean(gaps)]), { label: `Arms of ${claim.name}` });
}

const mean = (values) => (values.length ? (100 * values.reduce((sum, value) => sum + value, 0) / values.length).toFixed(1) : "-");

const AXES = { points: "points of error", times: "times as long, in powers of two", g: "|g| beyond chance", share: "share of the distance between photographs", precision: "points of precision, more is better" };

// Rows of one unit: their means and intervals, every seed a dot, and a numbered list of what they are.
function forest(name, unit, rows) {
  const known = (value) => logarithm(unit, value) ?? undefined;
  return [forestPlot({
    title: `${name}: ${rows.map((row) => `${row.label} ${shown(unit, row.mean)}`).join("; ")}`,
    label: AXES[unit],
    rows: rows.map((row, i) => ({
      name: `${i + 1}`,
      value: known(row.mean),
      low: known(row.low),
      high: known(row.high),
      mark: known(row.published),
      parts: row.seeds.map(known),
    })),
    left: 40,
    right: 20,
  }), element("ol", { className: "quiet" }, ...rows.map((row) => element("li", { textContent: `${row.label}: ${row.verdict}` })))];
}

const of = (rows, unit) => rows.filter((row) => row.unit === unit);

function plots(claim) {
  return Object.keys(AXES).filter((unit) => of(claim.rows, unit).length).flatMap((unit) => forest(claim.name, unit, of(claim.rows, unit)));
}

const UNITS = { relu: "ReLU", tanh: "tanh", "abs-tanh": "|tanh|" };

// The mean of the seeds' errors over epochs, and from the smallest to the largest; a seed that is there counts with its last error.
function over(curves) {
  const epochs = [...Array(Math.max(...curves.map((curve) => curve.errors.length))).keys()];
  const at = (epoch) => curves.map(({ errors }) => 100 * (errors[epoch] ?? errors.at(-1)));
  return {
    points: epochs.map((epoch) => [epoch + 0.5, at(epoch).reduce((sum, error) => sum + error, 0) / curves.length]),
    band: epochs.map((epoch) => [epoch + 0.5, Math.min(...at(epoch)), Math.max(...at(epoch))]),
  };
}

function figure1(curves) {
  return [...new Set(curves.map(({ setting }) => setting))].flatMap((setting) => {
    const some = curves.filter((curve) => curve.setting === setting);
    const longest = Math.max(...some.map((curve) => curve.errors.length));
    const curvesOf = (unit) => some.filter((curve) => curve.nonlinearity === unit);
    return [element("h4", { textContent: setting }), lineChart({
      title: `Training error over epochs, ${setting}`,
      x: { label: "epoch", min: 0 },
      y: { label: "running training error, %", min: 0 },
      series: [
        ...Object.keys(UNITS).filter((unit) => curvesOf(unit).length).map((unit) => ({ name: `${UNITS[unit]}, ${curvesOf(unit).length} seeds`, ...over(curvesOf(unit)) })),
        { name: "25 %", points: [[0, 25], [longest, 25]], dashed: true },
      ],
    })];
  });
}

const KINDS = { gain: "Gain: pixels times", bias: "Bias: pixels plus" };

// The mean of the seeds' moves over the levels, and from the smallest to the largest.
function brightness(every) {
  return Object.entries(KINDS).flatMap(([kind, name]) => {
    const some = every.filter((moves) => moves.kind === kind);
    if (!some.length) return [];
    return [element("h4", { textContent: name }), lineChart({
      title: `How far FC7 moves. ${name}`,
      x: { label: kind, log: kind === "gain" },
      y: { label: "move, as a share of that between classes", min: 0 },
      series: [...new Set(some.map(({ arm }) => arm))].map((arm) => {
        const seeds = some.filter((moves) => moves.arm === arm);
        const values = seeds[0].levels.map((level, i) => [level, seeds.map(({ moves }) => moves[i])]);
        return {
          name: `${arm}, ${seeds.length} seeds`,
          points: values.map(([x, ys]) => [x, ys.reduce((sum, y) => sum + y, 0) / ys.length]),
          band: values.map(([x, ys]) => [x, Math.min(...ys), Math.max(...ys)]),
        };
      }),
    })];
  });
}

function one(claim, report) {
  return [
    element("p", { textContent: `${claim.says}. Published: ${claim.published}. There would be no effect if ${claim.nothing}.` }),
    claim.rows.length ? differences(claim) : empty("No pair of runs is made yet; the same command goes on."),
    ...plots(claim),
    ...(claim.name === "relu" ? [element("h3", { textContent: "Figure 1" }), ...figure1(report.figure1)] : []),
    ...(claim.name === "brightness" ? brightness(report.brightness) : []),
    element("h3", { textContent: "Arms" }),
    arms(claim),
    element("p", { className: "quiet", textContent: `${claim.runs} runs, ${claim.missing} still to make; ${(claim.seconds / 60).toFixed(0)} minutes of training.` }),
  ];
}

// Whose these results are, for nobody to take those that are shipped for this machine's.
function origin(report) {
  if (!report.shipped) return [];
  return [element("p", {}, element("strong", { textContent: "Not measured here. " }), "These results come with the package, measured on the machine and at the commit below. ",
    element("code", { textContent: "python -m training.claims --quick --out var/claims" }), " measures them here, and ",
    element("code", { textContent: "FC7_CLAIMS=var/claims" }), " shows them.")];
}

const measured = (report) => facts([
  ["size", SIZES[report.size]], ["machine", report.machine], ["PyTorch", report.torch], ["commit", report.commit],
  ["photographs", Object.entries(report.photographs).map(([data, { train, test }]) => `${data}: ${train} to train on, ${test} to test, ${report.epochs[data]} epochs`).join("; ")],
  ["training", `${(report.seconds / 3600).toFixed(1)} hours, all runs added up`],
]);

function drawings(report) {
  const rows = report.claims.flatMap((claim) => claim.rows);
  const groups = [
    ["Errors beside published ones", "points", of(rows, "points").filter((row) => row.published !== null)],
    ["Errors of which nothing is published", "points", of(rows, "points").filter((row) => row.published === null)],
    ["Epochs", "times", of(rows, "times")],
    ["Figure 3 over seeds: how far the columns lie apart in chroma", "g", of(rows, "g")],
    ["Brightness: how far FC7 moves, as a share of the distance between photographs", "share", of(rows, "share")],
    ["Neighbours found", "precision", of(rows, "precision")],
  ];
  return [
    element("p", { className: "quiet", textContent: "Pale dots are seeds, a bar their mean's interval of 95 %, a diamond the published figure." }),
    ...groups.filter(([, , some]) => some.length).flatMap(([name, unit, some]) => [element("h3", { textContent: name }), ...forest(name, unit, some)]),
    ...(report.figure1.length ? [element("h3", { textContent: "Figure 1" }), ...figure1(report.figure1)] : []),
  ];
}

const listed = (rows) => element("ul", {}, ...rows.map((row) => element("li", {
  textContent: `${row.label}: ${row.censored ? "> " : ""}${shown(row.unit, row.mean)}, ${row.verdict}` })));

// What has a published figure, or else the first two rows; the rest is opened by hand.
function found(claim) {
  if (!claim.rows.length) return "not measured yet";
  const published = claim.rows.filter((row) => row.published !== null);
  const first = published.length ? published : claim.rows.slice(0, 2);
  const rest = claim.rows.filter((row) => !first.includes(row));
  return [listed(first), rest.length > 0 && element("details", {}, element("summary", { textContent: `${rest.length} more` }), listed(rest))];
}

function overview(report) {
  const rows = report.claims.map((claim) => [
    element("a", { href: address("claims", [claim.name]), textContent: claim.says }), claim.published, found(claim)]);
  return [
    element("p", { textContent: "What the paper says, measured again with small networks on CIFAR-10 and Caltech-101, by pairs of runs that share a seed." }),
    ...origin(report),
    measured(report),
    table(["claim", "published", "here"], rows, { label: "All claims" }),
    ...drawings(report),
  ];
}

export async function show(root, place, { signal, title }) {
  const report = await api.get("reports/claims", {}, signal);
  const [name] = place.parts;
  if (!name) {
    root.append(...overview(report));
    return;
  }
  const claim = report.claims.find((candidate) => candidate.name === name);
  if (!claim) throw new Error(`There is no claim ${name}; there are ${report.claims.map((candidate) => candidate.name).join(", ")}.`);
  title(`Claims: ${claim.name}`);
  root.append(element("p", {}, element("a", { href: address("claims", []), textContent: "All claims" })), ...origin(report), ...one(claim, report), measured(report));
}
