// Examples: what neighbours are to be like, and unlike.

import { element } from "../../components/elements.js";
import { thumbnail } from "../../components/photograph.js";
import { hold } from "../../components/uploads.js";
import { keptOf } from "./options.js";

const KINDS = { like: "Like", unlike: "Unlike" };

// The parameters of a search with one more example; the first joins what was asked about.
export function toggled({ query, photographs, examples }, kind, ...references) {
  const chosen = { like: new Set(examples.like.map((one) => one.reference)), unlike: new Set(examples.unlike.map((one) => one.reference)) };
  if (!chosen.like.size && !chosen.unlike.size) for (const { reference } of photographs) chosen.like.add(reference);
  for (const reference of references) {
    for (const others of Object.values(chosen)) others.delete(reference);
    chosen[kind].add(reference);
  }
  return { ...keptOf(query), like: [...chosen.like], unlike: [...chosen.unlike] };
}

function without({ query, examples }, kind, reference) {
  const left = Object.keys(KINDS).map((name) => [name, examples[name].map((one) => one.reference)
    .filter((other) => name !== kind || other !== reference)]);
  return { ...keptOf(query), ...Object.fromEntries(left) };
}

// The examples of the address, with buttons to take them back and fields for photographs of one's own.
export function chosenExamples(view) {
  const { examples, context } = view;
  if (!examples.like.length && !examples.unlike.length) return null;
  return element("div", { className: "examples" }, ...Object.entries(KINDS).flatMap(([kind, words]) => [
    element("b", { textContent: words }),
    element("ul", { "aria-label": `${words} these` }, ...examples[kind].map((one) => element("li", {},
      element("button", { type: "button", title: "Take it back", onclick: () => context.go("search", [], without(view, kind, one.reference)) },
        element("img", { src: one.address ?? thumbnail(one.id), alt: one.path ?? `photograph ${one.id}` }))))),
    element("label", { className: "picker" }, "+ file", element("input", { type: "file", accept: "image/*",
      "aria-label": `${words} a photograph of your own, too`,
      onchange: ({ target }) => target.files.length && context.go("search", [], toggled(view, kind, ...[...target.files].map(hold))) })),
  ]), !examples.like.length && element("p", { className: "quiet", textContent: "Choose with + what neighbours are like." }));
}
