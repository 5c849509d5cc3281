// The options of a search: what the address holds, and the controls that change it.

import { choices, element, field, select } from "../../components/elements.js";

const NAMES = ["k", "mode", "columns", "views", "label", "exclude_label", "path_prefix", "added_after", "added_before"];
const LISTS = new Set(["label", "exclude_label"]);
const NEIGHBORS = 12;
const WHOLE = "both";

// The options as parameters of an address.
export const keptOf = (query) =>
  Object.fromEntries(NAMES.map((name) => [name, LISTS.has(name) ? query.getAll(name) : query.get(name)]));

// The options as parameters of POST /neighbors.
export function optionsOf(query) {
  const { views, ...options } = keptOf(query);
  return { ...options, k: options.k ?? NEIGHBORS };
}

export const hasOptions = (query) => NAMES.some((name) => query.has(name));

export const viewsOf = (query) => (query.get("views") === "10" ? 10 : 1);

// Sets what the controls say in `query`, and tells `changed`.
export function controls(query, { model, index }, changed) {
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
    ...ways(query, index, set),
    labels, chosen);
}

// How neighbours are found, where there is a choice. Codes and short-lists are of whole features: of a mode and a column that do not
// go together the one that was chosen last stands.
function ways(query, index, set) {
  const pick = (name, value) => {
    if (columns.value !== WHOLE && !["", "exact"].includes(mode.value)) {
      const [other, usual] = name === "mode" ? [columns, WHOLE] : [mode, ""];
      other.value = usual;
      query.delete(name === "mode" ? "columns" : "mode");
    }
    set(name, value === WHOLE ? "" : value);
  };
  const mode = select({ "": `${index.mode} (as set)`, exact: "exact", "two-stage": "two-stage", code: "by code" }, query.get("mode") ?? "",
    { title: index.reason, onchange: () => pick("mode", mode.value) });
  const texts = Object.fromEntries(index.columns.map((one) => [one, one === WHOLE ? "both" : `column ${one} alone`]));
  const columns = select(texts, query.get("columns") ?? WHOLE,
    { title: "Of one column alone its half of the features is compared, by exact search", onchange: () => pick("columns", columns.value) });
  return [
    index.bits > 0 && field("search", mode, { className: "field wide" }),
    index.columns.length > 1 && field("columns", columns, { className: "field wide" }),
  ];
}

// A time in UTC as the field for local times has it.
function local(text) {
  const time = new Date(text ?? NaN);
  if (Number.isNaN(time.valueOf())) return "";
  return new Date(time.valueOf() - 60_000 * time.getTimezoneOffset()).toISOString().slice(0, 16);
}
