// Layers: one photograph seen through the network at #/layers?photo=17, and why two are near at #/layers/why?photo=17&neighbor=4.

import * as api from "../api.js";
import { dropzone } from "../components/dropzone.js";
import { element } from "../components/elements.js";
import { card, cards } from "../components/photograph.js";
import { failure, fill } from "../components/states.js";
import { ask } from "../components/subject.js";
import { hold, photographOf, photographsOf } from "../components/uploads.js";
import { explained } from "../components/why.js";
import { address } from "../router.js";
import { maps } from "./layers/maps.js";
import { occlusion } from "./layers/occlusion.js";
import { views } from "./layers/views.js";

const STARTERS = 12;

export async function show(root, { parts, query }, context) {
  if (parts[0] === "why") return showWhy(root, query, context);
  if (parts.length) throw new Error(`There is no page ${parts[0]} here.`);
  const { signal, go, replace, title } = context;
  const info = await api.info(signal);
  if (!info.model) await api.ready(signal);  // says why not
  const reference = query.get("photo");
  const { photographs: [photograph], lost } = photographsOf(reference ? [reference] : []);
  const item = photograph && !photograph.file ? await api.item(photograph.id, signal) : null;
  const shown = photograph && (photograph.file ? photograph : { address: `items/${photograph.id}/image`, path: item.path });
  if (shown) title(`Layers: ${shown.path}`);
  root.append(dropzone({ signal, several: false, shown: shown && { address: shown.address, name: shown.path },
    onFiles: ([file]) => go("layers", [], { ...Object.fromEntries(query), photo: hold(file) }) }));
  if (!photograph) {
    const found = element("div");
    root.append(...(lost ? [failure(lost)] : []), found);
    return fill(found, signal, () => starters(info, query, signal));
  }
  const again = () => replace("layers", [], query);
  const found = element("div");
  root.append(element("p", {}, element("a", { href: address("search", [], { photo: reference }), textContent: "Its neighbours" })), found);
  await fill(found, signal, async () => {
    const answer = await ask("views", { top: 3 }, photograph, signal);  // first, as what is no photograph fails once then
    return [
      element("h3", { textContent: "What covering does to its class" }),
      occlusion(photograph, query, info, again, signal),
      element("h3", { textContent: "The ten views" }),
      views(photograph, answer, signal),
      element("h3", { textContent: "The maps of a layer" }),
      maps(photograph, query, info, again, signal),
    ];
  });
}

async function showWhy(root, query, { signal, title }) {
  const [reference, neighbor] = [query.get("photo"), query.get("neighbor")];
  if (!reference || !/^\d+$/.test(neighbor ?? "")) throw new Error("An explanation is of a photo and a neighbor: their numbers stand in the address.");
  const photograph = photographOf(reference);
  title(`Why is photograph ${neighbor} near ${photograph.file ? photograph.path : `photograph ${photograph.id}`}?`);
  const content = element("div");
  root.append(content, element("p", { className: "ways" },
    element("a", { href: address("search", [], { photo: reference }), textContent: "All neighbours of the query" }),
    element("a", { href: address("layers", [], { photo: reference }), textContent: "The query through the layers" }),
    element("a", { href: address("layers", [], { photo: neighbor }), textContent: "The neighbour through the layers" })));
  await fill(content, signal, () => explained(photograph, neighbor, signal));
}

async function starters(info, query, signal) {
  const count = info.index?.items ?? 0;
  const most = Math.min(STARTERS, count);
  const ids = Array.from({ length: most }, (_, i) => Math.floor((i * count) / most));
  const answers = await Promise.allSettled(ids.map((id) => api.item(id, signal)));  // some may have been removed
  const items = answers.filter(({ value }) => value).map(({ value }) => value);
  return [element("p", { className: "quiet", textContent: `See a photograph of your own through the network${items.length ? ", or one of these:" : "."}` }),
    cards("Photographs to look at", ...items.map((item) =>
      card(item, { href: address("layers", [], { ...Object.fromEntries(query), photo: item.id }) })))];
}
