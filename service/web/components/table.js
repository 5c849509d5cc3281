// Tables, which scroll sideways by themselves where they are wider than the page.

import { element } from "./elements.js";

const cell = (tag, properties, content) => element(tag, properties, ...[content].flat());

// `heads` are texts; each row is its name and its cells: texts or elements.
export function table(heads, rows, { label, caption } = {}) {
  const made = element("table", {},
    caption && element("caption", { textContent: caption }),
    element("thead", {}, element("tr", {}, ...heads.map((head) => (head ? cell("th", { scope: "col" }, head) : element("td"))))),
    element("tbody", {}, ...rows.map(([name, ...cells]) => element("tr", {},
      cell("th", { scope: "row" }, name), ...cells.map((content) => cell("td", {}, content))))));
  return element("div", { className: "wide-table", tabIndex: 0, role: "region", "aria-label": label ?? caption ?? heads.filter(Boolean).join(", ") }, made);
}

// Facts: pairs of a name and what it is; those without are left out.
export function facts(pairs) {
  const given = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return element("dl", { className: "facts" }, ...given.flatMap(([name, value]) => [
    element("dt", { textContent: name }), element("dd", {}, ...[value].flat())]));
}
