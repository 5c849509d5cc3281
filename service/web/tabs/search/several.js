// Several photographs, each by itself: its first class, and its first neighbours.

import * as api from "../../api.js";
import { element } from "../../components/elements.js";
import { card, cards, nearness, thumbnail } from "../../components/photograph.js";
import { failure } from "../../components/states.js";
import { address } from "../../router.js";
import { keptOf, optionsOf, viewsOf } from "./options.js";

const FIRST = 6;

export async function several({ query, photographs, info }, signal) {
  const options = { ...optionsOf(query), k: FIRST };
  const kept = keptOf(query);
  const together = element("a", { href: address("search", [], { ...kept, like: photographs.map(({ reference }) => reference) }),
    textContent: "Search by all of them together" });
  const files = photographs.filter(({ file }) => file);
  const most = info.settings.max_images;
  if (files.length > most) throw new Error(`At most ${most} photographs can be searched at once, got ${files.length}.`);
  const [classes, ofFiles, ofItems] = await Promise.all([
    files.length ? api.classify(files.map(({ file }) => file), viewsOf(query), signal) : [],
    files.length ? api.neighborsOfFiles(files.map(({ file }) => file), options, signal) : { results: [] },
    Promise.all(photographs.filter(({ file }) => !file).map(({ id }) => api.neighborsOfItem(id, options, signal))),
  ]);
  let file = 0;
  let item = 0;
  const rows = photographs.map((photograph) => {
    if (!photograph.file) {
      const answer = ofItems[item++];
      return row(photograph, null, answer.results[0], answer.metric, kept);
    }
    const at = file++;
    return row(photograph, classes[at], ofFiles.results[at], ofFiles.metric, kept);
  });
  return [element("p", {}, together), ...rows];
}

function row(photograph, classified, result, metric, kept) {
  const name = photograph.path ?? `photograph ${photograph.id}`;
  const href = address("search", [], { ...kept, photo: photograph.reference });
  const first = classified?.classes?.[0];
  const share = first ? `${first.class}, ${(100 * first.probability).toFixed(1)} %` : "";
  return element("section", { className: "one-of-several", "aria-label": name },
    element("a", { href, className: "query" },
      element("img", { src: photograph.address ?? thumbnail(photograph.id), alt: "" }),
      element("b", { textContent: name }), element("small", { textContent: share })),
    result.error ? failure(new Error(result.error.detail)) : cards(`Neighbours of ${name}`, ...result.neighbors.map((found) => {
      const { detail, words } = nearness(found, metric);
      return card(found, { href: address("search", [], { ...kept, photo: found.id }), title: [found.path, words].filter(Boolean).join("\n"), detail });
    })));
}
