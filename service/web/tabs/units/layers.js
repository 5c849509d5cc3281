// Where one goes among the layers: a bar of them, and of the columns of the one that is shown.

import { element } from "../../components/elements.js";
import { empty } from "../../components/states.js";
import { address } from "../../router.js";

const link = (parts, textContent, isHere) => {
  const made = element("a", { href: address("units", parts), textContent });
  if (isHere) made.ariaCurrent = "page";
  return made;
};

export function layerBar({ layers }, name, column) {
  const { columns } = layers.find(({ layer }) => layer === name);
  const ofColumns = Array.from({ length: columns }, (_, i) => link([name, i], columns > 1 ? `column ${i}` : "all units", column === `${i}`));
  if (name === "conv1") ofColumns.unshift(link(["conv1"], "kernels", column === undefined));
  return element("nav", { className: "layers", "aria-label": "Layers" },
    element("p", {}, ...layers.map(({ layer }) => link([layer], layer, layer === name))),
    element("p", {}, ...ofColumns));
}

// What to tell where the index has no atlas, with the command in its own type.
export function withoutAtlas(note) {
  const parts = note.split("`");
  return empty(...parts.map((part, i) => (i % 2 ? element("code", { textContent: part }) : part)));
}

// Which photographs an atlas is of, in a sentence or more.
export function about({ photographs, removed, since }) {
  const parts = [`Of ${photographs} photographs.`];
  if (removed) parts.push(`${removed} of them ${removed === 1 ? "has" : "have"} been removed since, and ${removed === 1 ? "is" : "are"} left out.`);
  if (since) parts.push(`${since} ${since === 1 ? "item" : "items"} came since, and ${since === 1 ? "is" : "are"} not among them.`);
  return parts.join(" ");
}
