// Status: what is served, what the index holds, and how the service is doing.

import * as api from "../api.js";
import { barChart } from "../components/charts.js";
import { element } from "../components/elements.js";
import { failure } from "../components/states.js";
import { reliability } from "../components/reliability.js";
import { facts, table } from "../components/table.js";
import { read, total } from "./status/metrics.js";

// Files of an index by what they are for; those that are not named here are shown by their own names.
const PARTS = {
  "vectors.faiss": "features", "codes.faiss": "codes", "components.npy": "short-list: principal components", "lengths.npy": "short-list: lengths",
  "shortlist.faiss": "short-list", "principal.safetensors": "what makes principal components", "catalog.sqlite": "catalogue of the photographs",
  "thumbnails.bin": "thumbnails", "autoencoder.safetensors": "what makes codes", "pixels.npy": "raw pixels", "pixel-codes.npy": "codes of raw pixels",
  "pixels.safetensors": "what makes codes of raw pixels", "deleted.npy": "removed items", "rejects.jsonl": "files that are no photographs",
  "atlas.safetensors": "unit atlas", "map.safetensors": "map", "calibration.json": "what distances mean", "calibration.png": "reliability plot",
};
const STAGES = { queue: "waiting for a batch", decode: "bytes to pixels", forward: "the network", search: "the search", answer: "writing the answer" };
const count = (value) => value.toLocaleString("en");
const milliseconds = (seconds) => (seconds === null ? "\u2013" : `${Number((1000 * seconds).toPrecision(2))} ms`);

export async function show(root, place, { signal }) {
  const [{ version, model, index, settings }, figures, why] = await Promise.all([
    api.info(signal), metrics(signal), api.ready(signal).then(() => null, (error) => error)]);
  if (signal.aborted) return;
  root.append(...[
    why ? failure(why) : element("p", { className: "good", textContent: "Ready: a model and an index that belong together are loaded." }),
    element("div", { className: "parts" },
      section("Model", model ? modelFacts(model) : "none"),
      section("Index", index ? indexFacts(index) : "none"),
      section("Service", serviceFacts(version, settings, figures))),
    index && section("What distances mean", reliability(index, signal)),
    section("Work", work(figures)),
    index && section("Files of the index", files(index)),
  ].filter(Boolean));
}

const section = (text, ...shown) => element("section", {}, element("h3", { textContent: text }), ...shown);

async function metrics(signal) {
  const response = await fetch("metrics", { signal });
  if (!response.ok) throw new Error(`The figures of the service cannot be read: ${response.status}`);
  return read(await response.text());
}

function modelFacts(model) {
  const { training } = model;
  return facts([["fingerprint", element("code", { textContent: model.fingerprint })], ["profile", model.profile],
    ["classes", count(model.classes.length)], ["parameters", count(model.parameters)],
    ["preset", training.preset], ["epochs", training.epochs], ["trained on", training.photographs && `${count(training.photographs)} photographs`],
    ["note", training.note]]);
}

function indexFacts(index) {
  const recall = Object.entries(index.recall).map(([mode, share]) => `${mode} ${share.toFixed(3)}`).join(", ");
  return facts([["version", count(index.version)], ["made", new Date(index.created).toLocaleString("en")], ["photographs", count(index.items)],
    ["rejected", count(index.rejected)], ["metric", index.metric], ["components of a feature", count(index.width)],
    ["codes", index.bits ? `${index.bits} bits` : "none"], ["search", `${index.mode}: ${index.reason}`], ["recall against exact search", recall],
    ["size", `${(index.bytes / 2 ** 20).toFixed(1)} MiB`]]);
}

function serviceFacts(version, settings, figures) {
  const started = total(figures, "process_start_time_seconds");
  return facts([["version", version], ["running since", started ? new Date(1000 * started).toLocaleString("en") : null],
    ["memory", `${(total(figures, "process_resident_memory_bytes") / 2 ** 20).toFixed(0)} MiB`],
    ["requests in flight", count(total(figures, "fc7_requests_in_flight"))],
    ["at most", `${settings.max_images} photographs and ${(settings.max_request_bytes / 2 ** 20).toFixed(0)} MiB a request, ${settings.max_neighbors} neighbours a page`],
    ["for programs", [element("a", { href: "docs", textContent: "API" }), ", ", element("a", { href: "metrics", textContent: "metrics" }), ", ",
      element("a", { href: "info", textContent: "info" })]]]);
}

// Since the service was started.
function work(figures) {
  const answered = (status) => total(figures, "fc7_requests_total", (labels) => labels.status.startsWith(status));
  const rejects = figures.filter(({ name, value }) => name === "fc7_rejects_total" && value).map(({ labels, value }) => `${labels.reason} ${count(value)}`);
  const stages = Object.entries(STAGES).map(([stage, words]) => {
    const of = (name) => total(figures, name, (labels) => labels.stage === stage);
    const times = of("fc7_stage_seconds_count");
    return { stage, words, times, mean: times ? of("fc7_stage_seconds_sum") / times : null };
  });
  return element("div", {},
    facts([["answered", `${count(answered("2"))} well, ${count(answered("4"))} refused, ${count(answered("5"))} failed or turned away`],
      ["turned away", rejects.join(", ") || "none"]]),
    table(["stage", "", "times", "mean"], stages.map(({ stage, words, times, mean }) => [stage, words, count(times), milliseconds(mean)]), { label: "Stages of the work" }),
    stages.some(({ mean }) => mean) && barChart({ title: "Mean time of each stage, in milliseconds", groups: stages.map(({ stage }) => stage),
      series: [{ name: "mean", values: stages.map(({ mean }) => 1000 * (mean ?? 0)) }], y: { label: "ms" } }));
}

function files(index) {
  const rows = Object.entries(index.parts).sort(([, a], [, b]) => b - a).map(([name, bytes]) => [name, PARTS[name] ?? "", `${count(bytes)} bytes`]);
  return table(["file", "what", "size"], rows, { label: "Files of the index" });
}
