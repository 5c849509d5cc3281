// The labels with their counts, and the items by label and by how their paths begin.

import * as api from "../../api.js";
import { element, field } from "../../components/elements.js";
import { card, cards } from "../../components/photograph.js";
import { paged } from "../../components/pages.js";
import { empty, fill } from "../../components/states.js";
import { address } from "../../router.js";

const ITEMS = 48;  // a page
const LABELS = 200;

export async function showItems(root, { query }, { signal, go }) {
  const labels = element("nav", { className: "labels", "aria-label": "Labels" });
  const items = element("section", { "aria-label": "Items" });
  const prefix = element("input", { value: query.get("path_prefix") ?? "", placeholder: "any", autocomplete: "off",
    onchange: ({ target }) => go("collection", [], asked(query.get("label"), target.value)) });
  root.append(element("div", { className: "browse" },
    element("div", {}, element("div", { className: "fields" }, field("path begins", prefix)), labels), items));
  const most = (await api.info(signal)).settings.max_neighbors;
  const filter = asked(query.get("label"), query.get("path_prefix"));
  await Promise.all([
    fill(labels, signal, () => showLabels(query, Math.min(LABELS, most), signal)),
    fill(items, signal, () => showPages(filter, Math.min(ITEMS, most), signal)),
  ]);
}

// Parameters of the address and of GET /items; an empty label is one too, no label is none.
function asked(label, prefix) {
  const query = new URLSearchParams();
  if (label !== null) query.set("label", label);
  if (prefix) query.set("path_prefix", prefix);
  return query;
}

async function showLabels(query, k, signal) {
  const link = (label, text, items) => element("li", {}, element("a", {
    href: address("collection", [], asked(label, query.get("path_prefix"))),
    ariaCurrent: query.get("label") === label ? "true" : null,
  }, element("span", { textContent: text }), element("span", { className: "quiet", textContent: items.toLocaleString("en") })));
  const first = await api.get("labels", { k }, signal);
  if (!first.of) return empty("The index is empty.");
  const list = element("ul", {}, link(null, "all", first.items));
  const add = ({ labels }) => list.append(...labels.map(({ label, items }) =>
    link(label, label || "without a label", items)));
  return [list, paged({ first, signal, next: (cursor) => api.get("labels", { k, cursor }, signal), add, text: "More labels" })];
}

async function showPages(filter, k, signal) {
  const page = (cursor) => api.get("items", new URLSearchParams([...filter, ["k", k], ...(cursor ? [["cursor", cursor]] : [])]), signal);
  const first = await page(null);
  if (!first.items.length) return empty(first.note ?? "No photograph is like that.");
  const list = cards("Items");
  const add = ({ items }) => list.append(...items.map((item) => card({ ...item, label: item.path.split("/").at(-1) }, {
    href: address("collection", [item.id]), detail: item.label || "without a label" })));
  return [element("p", { className: "quiet", textContent: `${first.of.toLocaleString("en")} photographs` }), list,
    paged({ first, signal, next: page, add, text: "More" })];
}
