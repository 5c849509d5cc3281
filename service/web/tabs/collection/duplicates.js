// Groups of near-duplicates, as they were last looked for in the whole collection.

import * as api from "../../api.js";
import { element, field } from "../../components/elements.js";
import { paged } from "../../components/pages.js";
import { card, cards, distance } from "../../components/photograph.js";
import { empty, fill } from "../../components/states.js";
import { address } from "../../router.js";

const GROUPS = 20;  // a page

export async function showDuplicates(root, { query }, { signal, replace }) {
  const groups = element("div");
  let asked = new AbortController();
  const ask = () => {
    asked.abort();
    asked = new AbortController();
    const both = AbortSignal.any([signal, asked.signal]);
    const options = { k: GROUPS, label: query.getAll("label"), path_prefix: query.get("path_prefix") };
    return fill(groups, both, () => page(options, both));
  };
  const text = (name) => element("input", { value: query.get(name) ?? "", placeholder: "any", autocomplete: "off", onchange: ({ target }) => {
    if (target.value) query.set(name, target.value);
    else query.delete(name);
    replace("collection", ["near-duplicates"], query);
    ask();
  } });
  root.append(element("div", { className: "fields" }, field("label", text("label")), field("path begins", text("path_prefix"))), groups);
  await ask();
}

async function page(options, signal) {
  const list = element("div");
  const add = (answer) => list.append(...answer.groups.map((group) => shown(group, answer.metric)));
  const following = (cursor) => next({ ...options, cursor }, signal);
  const first = await following(null);
  return [summary(first), first.groups.length ? list : empty(first.note ?? none(options)),
    paged({ first, signal, next: following, add, text: "More groups" })];
}

const none = ({ label, path_prefix: prefix }) => (label.length || prefix
  ? "No two photographs that pass the filter are near enough to each other."
  : "No two photographs are near enough to each other.");

// A page without groups, as where a filter leaves none of them, leads to the one after it.
async function next(options, signal) {
  let answer = { groups: [], next: options.cursor };
  do {
    answer = await api.duplicates({ ...options, cursor: answer.next }, signal);
  } while (!answer.groups.length && answer.next);
  return answer;
}

function summary(answer) {
  const when = new Date(answer.created).toLocaleString("en", { dateStyle: "medium", timeStyle: "short" });
  return element("p", { className: "quiet", textContent: `${answer.found.toLocaleString("en")} groups among ${answer.compared.toLocaleString("en")} photographs, `
    + `compared ${when}. Each is within ${distance(answer.threshold, answer.metric)} of another of its group, whose largest `
    + `photograph comes first. That distance is ${answer.chosen}.` });
}

function shown(group, metric) {
  const count = group.size > group.items.length ? `${group.size}, of which ${group.items.length} are shown` : group.size;
  return element("section", {},
    element("h3", {}, `${count} photographs `, element("small", { className: "quiet", textContent: `the farthest at ${distance(group.farthest, metric)}` })),
    cards(`A group of ${group.size}`, ...group.items.map((item, place) => {
      const apart = place === 0 && item.distance === 0 ? "the largest" : distance(item.distance, metric);
      return card({ ...item, label: item.path.split("/").at(-1) }, {
        href: address("search", [], { photo: item.id }), title: `${item.path}\nIts neighbours`, detail: item.label ? `${item.label}, ${apart}` : apart });
    })));
}
