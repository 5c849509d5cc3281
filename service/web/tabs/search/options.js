// The options of a search: what the address holds, and the controls that change it.

import { choices, element, field, select } from "../../components/elements.js";

const NAMES = ["k", "mode", "views", "label", "exclude_label", "path_prefix", "added_after", "added_before"];
const LISTS = new Set(["label", "exclude_label"]);
const NEIGHBORS = 12;

// The options as parameters of an address.
export const keptOf = (query) =>
  Object.fromEntries(NAMES.map((name) => [name, LISTS.has(name) ? query.getAll(name) : query.get(name)]));

// The options as parameters of POST /neighbors.
export function optionsOf(query) {
  const { views, ...options } = keptOf(query);
  return { ...options, k: options.k ?? NEIGHBORS };
}

export const viewsOf = (query) => (query.get("views") === "10" ? 10 : 1);

// Sets what the controls say in `query`, and tells `changed`.
export async function controls(query, { model, index }, signal, changed) {
  const set = (name, value) => {
    if (value) query.set(name, value);
    else query.delete(name);
    changed();
  };
  const text = (name, properties) => element("input", { value: query.get(name) ?? "", autocomplete: "off", ...properties,
    onchange: (event) => set(name, event.target.value) });
  const time = (name) => element("input", { type: "datetime-local", value: local(query.get(name)),
    onchange: ({ target }) => set(name, target.value && new Date(target.value).toISOString()) });
  const [labels, list] = choices(model.classes);
  const chosen = element("ul", { className: "chosen", "aria-label": "Labels chosen" });
  const label = (name, placeholder) => {
    const input = element("input", { placeholder, autocomplete: "off", onchange: () => {
      if (!input.value || query.getAll(name).includes(input.value)) return;
      query.append(name, input.value);
      input.value = "";
      showChosen();
      changed();
    } });
    input.setAttribute("list", list);
    return input;
  };
  const showChosen = () => chosen.replaceChildren(...[...LISTS].flatMap((name) => query.getAll(name).map((value) => {
    const words = name === "label" ? value : `not ${value}`;
    return element("li", {}, element("button", { type: "button", title: "Take it back", textContent: words, onclick: () => {
      query.delete(name, value);
      showChosen();
      changed();
    } }));
  })));
  showChosen();
  const modes = { "": `${index.mode} (as set)`, exact: "exact", "two-stage": "two-stage", code: "by code" };
  return element("form", { className: "options", onsubmit: (event) => event.preventDefault() },
    field("ten views", element("input", { type: "checkbox", checked: viewsOf(query) === 10,
      onchange: ({ target }) => set("views", target.checked ? "10" : "") })),
    field("neighbours", element("input", { type: "number", min: 1, max: 100, value: query.get("k") ?? NEIGHBORS,
      onchange: ({ target }) => target.reportValidity() && set("k", target.value) })),
    field("label", label("label", "any")),
    field("not label", label("exclude_label", "none")),
    field("path begins", text("path_prefix", { placeholder: "any" }), { className: "field wide" }),
    field("added from", time("added_after"), { className: "field wide" }),
    field("added before", time("added_before"), { className: "field wide" }),
    index.bits > 0 && field("search", select(modes, query.get("mode") ?? "", { title: index.reason,
      onchange: ({ target }) => set("mode", target.value) }), { className: "field wide" }),
    labels, chosen);
}

// A time in UTC as the field for local times has it.
function local(text) {
  const time = new Date(text ?? NaN);
  if (Number.isNaN(time.valueOf())) return "";
  return new Date(time.valueOf() - 60_000 * time.getTimezoneOffset()).toISOString().slice(0, 16);
}
