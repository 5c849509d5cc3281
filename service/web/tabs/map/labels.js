// Which labels have colours on the map, and the list to choose them from.

import { element, field } from "../../components/elements.js";
import { HIDDEN } from "./drawing.js";
import { middles } from "./points.js";

export const COLOURS = 8;

export class Labels {
  // `names`: those that an address says; `only`: whether points of other labels are left out.
  constructor(labels, points, names, only) {
    this.all = labels.map(({ label, count }, number) => ({ label, count, number }));
    this.points = points;
    this.middles = middles(points, labels.length);
    this.only = only;
    const given = names.map((name) => this.all.find(({ label }) => label === name)).filter(Boolean);
    this.usual = this.all.filter(({ count }) => count).slice(0, COLOURS);
    this.colours = Array(COLOURS).fill(null);
    this.choose(given.length > 0 ? given.slice(0, COLOURS) : this.usual);
  }

  get names() {
    return this.chosen.map(({ label }) => label);
  }

  get chosen() {
    return this.colours.filter(Boolean);
  }

  get isUsual() {
    return this.chosen.length === this.usual.length && this.usual.every((entry) => this.chosen.includes(entry));
  }

  choose(entries) {
    this.colours = Array.from({ length: COLOURS }, (_, i) => entries[i] ?? null);
  }

  // One label more, with the first colour that is free; where none is, the label that has had the first colour loses it.
  add(entry) {
    const free = this.colours.indexOf(null);
    this.colours[Math.max(free, 0)] = entry;
  }

  remove(entry) {
    this.colours[this.colours.indexOf(entry)] = null;
  }

  toneOf = (number) => this.colours.findIndex((entry) => entry?.number === number) + 1;
  nameOf = (i) => this.all[this.points.numbers[i]]?.label ?? "another label";
  isShown = (i) => !this.only || this.toneOf(this.points.numbers[i]) > 0;

  tones() {
    const ofNumbers = new Uint8Array(65536).fill(this.only ? HIDDEN : 0);
    for (const entry of this.chosen) ofNumbers[entry.number] = this.toneOf(entry.number);
    return Uint8Array.from(this.points.numbers, (number) => ofNumbers[number]);
  }

  // How many of each label, commonest first.
  summary(found) {
    const counts = new Map();
    for (const i of found) counts.set(this.nameOf(i), (counts.get(this.nameOf(i)) ?? 0) + 1);
    const sorted = [...counts].sort((one, other) => other[1] - one[1]);
    const named = sorted.slice(0, 8).map(([name, count]) => `${name || "without a label"} ${count}`);
    return named.join(", ") + (sorted.length > 8 ? `, and ${sorted.length - 8} more labels` : "");
  }
}

// The list of labels, first those that have colours now; `changed` is called when colours or points are others.
export function legend(labels, changed) {
  const rows = [...new Set([...labels.chosen, ...labels.all])].map((entry) => {
    const box = element("input", { type: "checkbox", onchange: () => toggle(entry, box.checked) });
    const dot = element("span", { className: "dot" });
    const row = element("li", {}, element("label", {}, box, dot, element("span", { textContent: entry.label || "without a label" }), element("small", { textContent: entry.count })));
    return { entry, box, dot, row };
  });
  const only = element("input", { type: "checkbox", checked: labels.only, onchange: () => { labels.only = only.checked; mark(); } });
  const wanted = element("input", { type: "search", placeholder: "find a label", ariaLabel: "Find a label", oninput: () => {
    for (const { entry, row } of rows) row.hidden = !entry.label.toLowerCase().includes(wanted.value.toLowerCase());
  } });
  const button = (text, entries) => element("button", { type: "button", textContent: text, onclick: () => { labels.choose(entries); mark(); } });

  function toggle(entry, isChosen) {
    if (isChosen) labels.add(entry);
    else labels.remove(entry);
    mark();
  }

  function mark(isFirst = false) {
    for (const { entry, box, dot } of rows) {
      const tone = labels.toneOf(entry.number);
      box.checked = tone > 0;
      dot.style.background = tone ? `var(--map-${tone})` : "var(--map-0)";
    }
    if (!isFirst) changed();
  }

  mark(true);
  return element("details", { className: "legend", open: matchMedia("(min-width: 50rem)").matches },
    element("summary", { textContent: `Labels (${labels.all.length})` }),
    element("p", { className: "quiet", textContent: `Up to ${COLOURS} have colours.` }),
    element("div", { className: "buttons" }, button("Commonest", labels.usual), button("None", [])),
    field("only these", only),
    labels.all.length > 12 && wanted,
    element("ul", { "aria-label": "Labels", tabIndex: 0 }, ...rows.map(({ row }) => row)));
}
