// Search: the classes and the neighbours of a photograph, of several, or of examples together.
//
// photo=17 is an indexed photograph, photo=u1 one of one's own, several of them are searched one by one; like= and unlike= are
// examples; the other parameters are those of POST /neighbors, and views=10.

import * as api from "../api.js";
import { dropzone } from "../components/dropzone.js";
import { element } from "../components/elements.js";
import { paged } from "../components/pages.js";
import { card, cards, classList, nearness } from "../components/photograph.js";
import { empty, failure, fill } from "../components/states.js";
import { hold, photographsOf } from "../components/uploads.js";
import { whyButton } from "../components/why.js";
import { address } from "../router.js";
import { chosenExamples, toggled } from "./search/examples.js";
import { controls, hasOptions, keptOf, optionsOf, viewsOf } from "./search/options.js";
import { several } from "./search/several.js";

const NEAREST = {
  euclidean: "Nearest first, by Euclidean distance between FC7 features.",
  cosine: "Nearest first, by cosine distance: the angle between FC7 features, whatever their lengths.",
  hamming: "Nearest first, by how many bits of their short codes differ.",
};
const STARTERS = 12;
const WIDE = "(min-width: 46rem)";  // where the options leave room for the neighbours beside them

export async function show(root, { query }, context) {
  const { signal } = context;
  const info = await api.info(signal);
  if (!info.model || !info.index) await api.ready(signal);  // says why not
  const named = ["photo", "like", "unlike"].map((name) => photographsOf(query.getAll(name)));
  const [{ photographs }, { photographs: like }, { photographs: unlike }] = named;
  const examples = { like, unlike };
  const lost = named.find((one) => one.lost)?.lost;
  const given = photographs.length === 1 ? photographs[0] : null;

  const classes = element("div", { "aria-live": "polite" });
  const found = element("section", { className: "found", "aria-label": "Answer", "aria-live": "polite" });
  const view = { context, query, photographs, examples, given, classes, found, info };
  root.append(
    element("section", { className: "ask", "aria-label": "Query" },
      dropzone({ signal, shown: await shownIn(given, signal), onFiles: (files) => context.go("search", [], { ...keptOf(query), photo: files.map(hold) }) }),
      classes,
      chosenExamples(view),
      element("details", { open: matchMedia(WIDE).matches || hasOptions(query) }, element("summary", { textContent: "Options" }),
        controls(query, info, () => {
          context.replace("search", [], query);
          ask(view);
        })),
      given && element("p", { className: "ways" },
        element("a", { href: address("layers", [], { photo: given.reference }), textContent: "See it through the network" }),
        info.index.mapped && !given.file && element("a", { href: onMap(given.id), textContent: "See it on the map" }))),
    found);
  if (lost) found.append(failure(lost));
  else await ask(view);
}

const onMap = (id) => address("map", [], { photo: id });

async function shownIn(given, signal) {
  if (!given) return null;
  if (given.file) return { address: given.address, name: given.path };
  const item = await api.item(given.id, signal).catch(() => null);
  return item && { address: `items/${given.id}/image`, name: item.path };
}

// What the address asks; only the newest answer is shown, whatever order the answers come in.
async function ask(view) {
  view.asked?.abort();
  view.asked = new AbortController();
  view.classes.replaceChildren();
  const signal = AbortSignal.any([view.context.signal, view.asked.signal]);
  const { photographs, examples, given, found } = view;
  if (examples.like.length) return fill(found, signal, () => neighbors(view, signal, "Of the examples together. ", (more) =>
    api.neighborsOfExamples(examples.like, examples.unlike, more, signal)));
  if (photographs.length > 1) return fill(found, signal, () => several(view, signal));
  if (!given) return fill(found, signal, () => starters(view, signal));
  if (!given.file) return fill(found, signal, () => neighbors(view, signal, "Of an indexed photograph. ", (more) =>
    api.neighborsOfItem(given.id, more, signal)));
  const shown = fill(found, signal, () => neighbors(view, signal, "", (more) => api.neighborsOfFiles([given.file], more, signal)));
  try {
    const [{ classes, error }] = await api.classify([given.file], viewsOf(view.query), signal);
    if (!signal.aborted) view.classes.replaceChildren(error ? failure(new Error(error.detail)) : classList(classes));
  } catch (error) {
    // the neighbours fail with the same words
  }
  return shown;
}

async function neighbors(view, signal, of, page) {
  const options = optionsOf(view.query);
  const first = await page(options);
  const { metric, columns, results: [result] } = first;
  const alone = columns === "both" ? "" : ` Column ${columns}'s half of them alone is compared.`;
  const list = cards("Neighbours");
  const add = (answer) => list.append(...answer.results[0].neighbors.map((item) => neighbor(view, item, metric)));
  if (!result.neighbors.length) return [empty(result.note ?? "No photograph passes these filters.")];
  return [element("p", { className: "quiet", textContent: result.note ?? `${of}${NEAREST[metric]}${alone}` }), list,
    paged({ first, signal, next: (cursor) => page({ ...options, cursor }), add, text: "More", nextOf: (answer) => answer.results[0].next })];
}

function neighbor(view, item, metric) {
  const kept = keptOf(view.query);
  if (view.given?.id === item.id) {
    return card(item, { href: address("collection", [item.id]), title: `${item.path}\nIts page in the collection`, detail: "this photograph", isAsked: true });
  }
  const { detail, words } = nearness(item, metric);
  const name = item.label || item.path;
  const vote = (kind, sign, words) => element("button", { type: "button", title: words, "aria-label": words, textContent: sign,
    onclick: () => view.context.go("search", [], toggled(view, kind, String(item.id))) });
  return card(item, {
    href: address("search", [], { ...kept, photo: item.id }),
    title: [item.path, words, "Its neighbours"].filter(Boolean).join("\n"),
    detail,
    extra: [
      ...(view.given && metric ? [whyButton(view.given, item, view.context.signal)] : []),
      vote("like", "+", `Like ${name}, too`), vote("unlike", "\u2212", `Unlike ${name}`),
      ...(view.info.index.mapped ? [element("a", { href: onMap(item.id), title: `${name} on the map`, "aria-label": `${name} on the map`, textContent: "\u25ce" })] : []),
    ],
  });
}

async function starters(view, signal) {
  const count = view.info.index.items;
  const most = Math.min(STARTERS, count);
  const ids = Array.from({ length: most }, (_, i) => Math.floor((i * count) / most));
  const answers = await Promise.allSettled(ids.map((id) => api.item(id, signal)));  // some may have been removed
  const items = answers.filter(({ value }) => value).map(({ value }) => value);
  return [element("p", { className: "quiet", textContent: "Nothing asked yet. Start with a photograph of your own, or with one of these:" }),
    cards("Photographs to start with", ...items.map((item) => neighbor(view, item)))];
}

