// Why a photograph and a neighbour are near: which parts of either bring them together.

import { address } from "../router.js";
import { element } from "./elements.js";
import { heated, legend } from "./heat.js";
import { distance } from "./photograph.js";
import { fill } from "./states.js";
import { ask } from "./subject.js";

// The elements that say so; `photograph` is as photographOf gives it.
export async function explained(photograph, neighbor, signal) {
  const answer = await ask("explain", { neighbor }, photograph, signal);
  const worth = "what brings the two together lies";
  return [
    element("p", { textContent: `Nothing covered, they are at ${distance(answer.distance, answer.metric)} from each other. Each of `
      + `${answer.windows} squares of one was greyed in turn, while the other stayed whole. A place counts by how far the two then move apart, `
      + "less how far the rest of the collection moves." }),
    element("div", { className: "two" },
      heated(answer.query, { name: "the query", worth }), heated(answer.neighbor, { name: "the neighbour", worth })),
    legend("brings them together", "keeps them apart"),
    element("p", { className: "quiet", textContent: `By ${answer.layer.toUpperCase()} and the index's metric, ${answer.metric}; version `
      + `${answer.index_version} of the index. The deepest colour is the largest of each photograph by itself.` }),
  ];
}

export const whyAddress = (photograph, neighbor) => address("layers", ["why"], { photo: photograph.reference, neighbor });

// A button that shows it in a window over the page; `signal` is the tab's.
export function whyButton(photograph, { id, label, path }, signal) {
  const words = `Why is ${label || path} near?`;
  return element("button", { type: "button", title: words, "aria-label": words, textContent: "?", onclick: () => open(photograph, id, words, signal) });
}

function open(photograph, neighbor, words, signal) {
  const shut = new AbortController();
  const content = element("div");
  const close = element("button", { type: "button", textContent: "Close", onclick: () => dialog.close() });
  const dialog = element("dialog", { className: "why", "aria-label": words },
    element("h3", { textContent: words }), content,
    element("p", { className: "ways" }, close, element("a", { href: whyAddress(photograph, neighbor), textContent: "as a page of its own" })));
  dialog.addEventListener("close", () => {
    shut.abort();
    dialog.remove();
  });
  signal.addEventListener("abort", () => dialog.close(), { signal: shut.signal });
  document.querySelector("main").append(dialog);
  dialog.showModal();
  fill(content, AbortSignal.any([signal, shut.signal]), () => explained(photograph, neighbor, AbortSignal.any([signal, shut.signal])));
}
