// Compare: the neighbours of one photograph by every way of finding them, a row each.
//
// photo=17 is an indexed photograph (id=17 is the same), photo=u1 one of one's own, k how many neighbours a row has, and item=3 the
// neighbour that is marked in every row.

import * as api from "../api.js";
import { dropzone } from "../components/dropzone.js";
import { element, field, select } from "../components/elements.js";
import { card, cards, digits, distance, nameOf, thumbnail } from "../components/photograph.js";
import { empty, fill } from "../components/states.js";
import { hold, photographOf } from "../components/uploads.js";
import { address } from "../router.js";

const MANY = { 5: "5", 10: "10", 20: "20", 50: "50" };
const STARTERS = 12;
const TONES = 8;
const WORDS = {
  code: "autoencoder's code",
  "pixel-code": "raw pixels' code",
};

export async function show(root, { query }, context) {
  const { signal } = context;
  const info = await api.info(signal);
  if (!info.model || !info.index) await api.ready(signal);  // says why not
  const reference = query.get("photo") ?? query.get("id");
  const given = reference === null ? null : photographOf(reference);
  const k = MANY[query.get("k")] ?? "10";
  const rows = element("section", { className: "rows", "aria-label": "Ways", "aria-live": "polite" });
  root.append(
    element("section", { className: "ask", "aria-label": "Query" },
      dropzone({ signal, several: false, shown: await shownIn(given, signal), onFiles: ([file]) => context.go("compare", [], { photo: hold(file), k }) }),
      field("Neighbours a row", select(MANY, k, { onchange: (event) => context.go("compare", [], { photo: reference, k: event.target.value }) })),
      given && element("p", {}, element("a", { href: address("search", [], { photo: reference }), textContent: "Its neighbours in Search" }))),
    rows);
  const view = { context, query, reference, given, k };
  await fill(rows, signal, () => (given ? answered(view) : starters(info.index.items, signal)));
}

async function shownIn(given, signal) {
  if (!given) return null;
  if (given.file) return { address: given.address, name: given.path };
  const item = await api.item(given.id, signal);
  return { address: thumbnail(item.id), name: item.path };
}

async function answered({ context, query, reference, given, k }) {
  const { signal, replace, title } = context;
  const answer = given.file
    ? await api.post("compare", { k }, [["image", given.file]], signal)
    : await api.post("compare", { k, id: given.id }, [], signal);
  title(`Compare: ${given.file ? given.path : `item ${answer.name}`}`);
  const tones = tonesOf(answer);
  const first = answer.ways.find(({ way }) => way === answer.reference);
  const marked = new Map();  // the neighbours of an item by its id, in all rows
  let chosen = null;
  const mark = (id) => {
    const before = chosen;
    chosen = id === before ? null : id;
    for (const shown of marked.get(before) ?? []) shown.setMarked(false);
    for (const shown of marked.get(chosen) ?? []) shown.setMarked(true);
    query.delete("item");
    if (chosen !== null) query.set("item", chosen);
    replace("compare", [], query);
  };
  const made = answer.ways.map((way) => row(way, answer, first, { tones, mark, marked }));
  const asked = Number(query.get("item"));
  if (query.get("item") && marked.has(asked)) mark(asked);
  return [
    element("p", { className: "quiet", textContent: `${answer.layer.toUpperCase().replace("CONV", "conv")}, version ${answer.index_version}. `
      + `A colour is one photograph in all rows; press one to follow it. Beside each is its place here, and how far it moved from ${first.name}.` }),
    ...made,
  ];
}

// Colours for the photographs of the first row, the nearest ones; of the others those that are in most rows.
function tonesOf({ ways, reference }) {
  const counts = new Map();
  for (const { neighbors } of ways) for (const { id } of neighbors ?? []) counts.set(id, (counts.get(id) ?? 0) + 1);
  const first = ways.find(({ way }) => way === reference).neighbors.map(({ id }) => id);
  const shared = [...counts.keys()].filter((id) => counts.get(id) > 1);
  const order = [...first.filter((id) => counts.get(id) > 1), ...shared.filter((id) => !first.includes(id)).sort((a, b) => counts.get(b) - counts.get(a))];
  return new Map(order.slice(0, TONES).map((id, tone) => [id, tone]));
}

function row(way, answer, first, marks) {
  const name = WORDS[way.way] ?? way.name;
  const heading = element("h3", {}, name);
  if (way.reason) return element("section", { className: "way", "aria-label": name }, heading, empty(...commands(way.reason)));
  const share = way === first ? "the first row" : `${Math.round(way.overlap * first.neighbors.length)} of ${first.neighbors.length} as ${first.name}`;
  heading.append(element("small", { textContent: share }));
  if (way !== first) heading.append(meter(way.overlap, name, first.name));
  const list = element("ol", { className: "strip", "aria-label": `Neighbours by ${name}` },
    ...way.neighbors.map((item, place) => neighbor(item, place + 1, way, answer, first, marks)));
  return element("section", { className: "way", "aria-label": name }, heading,
    element("div", { className: "wide", tabIndex: 0, role: "region", "aria-label": `Neighbours by ${name}, from near to far` }, list));
}

// The command in a reason is set apart.
const commands = (reason) => reason.split("`").map((text, i) => (i % 2 ? element("code", { textContent: text }) : text));

function meter(overlap, name, reference) {
  const bar = element("span", { className: "overlap", role: "img", "aria-label": `${name} has ${Math.round(100 * overlap)} % of the neighbours by ${reference}` });
  bar.style.setProperty("--share", `${100 * overlap}%`);
  return bar;
}

function neighbor(item, place, way, answer, first, { tones, mark, marked }) {
  const words = moved(item, way === first, answer.ranked);
  const button = element("button", { type: "button", "aria-pressed": "false", title: `${item.path}\n${far(item.distance, way.metric)}\n${words.long}`, onclick: () => mark(item.id) },
    element("img", { src: thumbnail(item.id), alt: "", loading: "lazy", width: 160, height: 160 }),
    element("span", { className: "name", textContent: nameOf(item) }),
    element("span", { className: "place" }, element("b", { textContent: place }), element("small", { className: words.kind, textContent: words.short, "aria-label": words.long })));
  const shown = element("li", { className: tones.has(item.id) ? `tone-${tones.get(item.id)} toned` : "" }, button,
    element("a", { href: address("compare", [], { photo: item.id, k: answer.k }), "aria-label": `Compare ${nameOf(item)}, item ${item.id}`, title: "Compare this one", textContent: "\u2192" }));
  shown.setMarked = (on) => button.setAttribute("aria-pressed", String(on));
  marked.set(item.id, [...(marked.get(item.id) ?? []), shown]);
  return shown;
}

function moved({ rank, move }, isFirst, ranked) {
  if (isFirst) return { kind: "same", short: "", long: "" };
  if (rank === null) return { kind: "new", short: `>${ranked}`, long: `not among the ${ranked} first of the first row` };
  if (move === 0) return { kind: "same", short: "=", long: "in the same place as in the first row" };
  const places = Math.abs(move) === 1 ? "place" : "places";
  return move > 0
    ? { kind: "up", short: `\u2191${move}`, long: `${move} ${places} earlier than in the first row, where it is number ${rank}` }
    : { kind: "down", short: `\u2193${-move}`, long: `${-move} ${places} later than in the first row, where it is number ${rank}` };
}

const far = (value, metric) => (metric === "hellinger" ? `distance (Hellinger) ${digits(value, 3)}` : distance(value, metric));

async function starters(count, signal) {
  const most = Math.min(STARTERS, count);
  const ids = Array.from({ length: most }, (_, i) => Math.floor((i * count) / most));
  const answers = await Promise.allSettled(ids.map((id) => api.item(id, signal)));  // some may have been removed
  const items = answers.filter(({ value }) => value).map(({ value }) => value);
  return [element("p", { className: "quiet", textContent: "Nothing asked yet. Start with a photograph of your own, or with one of these:" }),
    cards("Photographs to start with", ...items.map((item) => card(item, { href: address("compare", [], { photo: item.id }) })))];
}
