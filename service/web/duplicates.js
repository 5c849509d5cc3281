// The view of groups of near-duplicates, as they were last looked for in the whole collection.

import * as api from "./api.js";
import { distance, element } from "./view.js";

const at = (id) => document.getElementById(id);
const GROUPS = 20;  // a page
let asked = 0;
let onPick = null;

// Shows the groups among what the two fields say, from the first on; a click on a photograph is told to `picked`.
export async function show(picked) {
  onPick = picked;
  const mine = ++asked;
  const options = { k: GROUPS, label: at("among-label").value, path_prefix: at("among-prefix").value };
  at("groups").replaceChildren();
  await next(options, mine);
}

// A page without groups, as where a filter leaves none of them, leads to the one after it.
async function next(options, mine) {
  tell("");
  at("more-groups").hidden = true;
  at("groups").setAttribute("aria-busy", "true");
  try {
    let answer = { groups: [], next: options.cursor };
    do {
      answer = await api.duplicates({ ...options, cursor: answer.next });
      if (mine !== asked) return;
    } while (!answer.groups.length && answer.next);
    showSummary(answer);
    at("groups").append(...answer.groups.map((group) => shown(group, answer.metric)));
    if (!at("groups").children.length) tell(answer.note ?? "No two photographs are near enough to each other.");
    at("more-groups").hidden = !answer.next;
    at("more-groups").onclick = () => next({ ...options, cursor: answer.next }, mine);
  } catch (error) {
    if (mine === asked) tell(error.message);
  } finally {
    if (mine === asked) at("groups").setAttribute("aria-busy", "false");
  }
}

function tell(text) {
  at("told").textContent = text;
  at("told").hidden = !text;
}

function showSummary(answer) {
  const when = new Date(answer.created).toLocaleString("en", { dateStyle: "medium", timeStyle: "short" });
  at("compared").textContent = `${answer.found.toLocaleString("en")} groups among ${answer.compared.toLocaleString("en")} photographs, `
    + `compared ${when}. Each is within ${distance(answer.threshold, answer.metric)} of another of its group, whose largest `
    + `photograph comes first. That distance is ${answer.chosen}.`;
}

function shown(group, metric) {
  const count = group.size > group.items.length ? `${group.size}, of which ${group.items.length} are shown` : group.size;
  const title = element("h3", {}, `${count} photographs `,
    element("small", { textContent: `the farthest at ${distance(group.farthest, metric)}` }));
  return element("li", {}, title, element("ul", { className: "pictures" }, ...group.items.map((item, place) => {
    const apart = place === 0 && item.distance === 0 ? "the largest" : distance(item.distance, metric);
    const name = item.path.split("/").at(-1);
    return element("li", {}, element("button", { type: "button", title: `${item.path}\nClick: its neighbours`, onclick: () => onPick(item) },
      element("img", { src: `items/${item.id}/thumbnail`, alt: "", loading: "lazy" }),
      element("b", { textContent: name }),
      element("small", { textContent: item.label ? `${item.label}, ${apart}` : apart }),
    ));
  })));
}

at("among").addEventListener("submit", (event) => event.preventDefault());
for (const field of ["among-label", "among-prefix"]) at(field).addEventListener("change", () => show(onPick));
