// The units of a column, each by what it sees in its best photographs, a page at a time.

import * as api from "../../api.js";
import { element, field, select } from "../../components/elements.js";
import { fill } from "../../components/states.js";
import { address, queryOf } from "../../router.js";
import { about, withoutAtlas } from "./layers.js";

const A_PAGE = 48;
const ORDERS = { index: "as trained", selectivity: "most selective first", active: "most often active first", maximum: "strongest first" };
const NONLINEARITIES = { relu: "ReLU", tanh: "tanh", "abs-tanh": "|tanh|", sigmoid: "the logistic function" };

export function showGrid(root, { atlas, note }, layer, column, { query }, { signal, title, replace }) {
  title(`Units of ${layer.layer}${layer.columns > 1 ? `, column ${column}` : ""}`);
  if (!atlas) {
    root.append(withoutAtlas(note));
    return undefined;
  }
  const list = element("div");
  const order = query.get("order") ?? "index";
  const show = (changes) => {
    const chosen = { order: query.get("order"), start: query.get("start"), ...changes };
    query = queryOf(chosen);
    replace("units", [layer.layer, column], query);
    return draw();
  };
  const draw = () => fill(list, signal, async () => {
    const answer = await api.twice(`units/${layer.layer}/${column}`, { order: query.get("order"), start: query.get("start"), k: A_PAGE }, signal);
    return drawn(answer, layer, (start) => show({ start: start || null }).then(() => list.querySelector("h3").focus()));
  });
  root.append(
    element("p", { className: "quiet", textContent: `${described(layer)} ${about(atlas)}` }),
    element("div", { className: "fields" }, field("order", select(ORDERS, order, { onchange: ({ target }) => show({ order: target.value, start: null }) }))),
    list);
  return draw();
}

function described({ layer, columns, units, side, field: seen, square, nonlinearity, dead }) {
  const count = columns > 1 ? `${columns} columns of ${units} units` : `${units} units`;
  const map = side ? `, each a map of ${side} x ${side} places that see ${seen} x ${seen} of ${square} x ${square} pixels` : ", which see the whole view";
  const after = nonlinearity ? `after ${NONLINEARITIES[nonlinearity]}${side ? ", before normalisation and pooling" : ""}` : "logits, as this layer has no nonlinearity";
  const never = dead ? ` ${dead} of them ${dead === 1 ? "is" : "are"} dead: no photograph excites ${dead === 1 ? "it" : "them"}.` : "";
  return `${layer}: ${count}${map}. Activations are taken ${after}.${never}`;
}

function drawn({ units, of, next, layer, column }, { side }, go) {
  const first = next === null ? of - units.length : next - A_PAGE;
  const turn = (text, start, there) => element("button", { type: "button", textContent: text, disabled: !there, onclick: () => go(start) });
  const heading = element("h3", { tabIndex: -1, textContent: `${first + 1} to ${first + units.length} of ${of}` });
  const pages = () => element("p", { className: "pages" },
    turn("Previous", Math.max(0, first - A_PAGE), first > 0), turn("Next", first + A_PAGE, next !== null));
  return [
    heading, pages(),
    element("ul", { className: "units", "aria-label": "Units" }, ...units.map((unit) => tile(unit, layer, column, side))),
    units.length > 12 && pages(),
  ].filter(Boolean);
}

function tile(unit, layer, column, side) {
  const name = `unit ${unit.unit}`;
  const picture = unit.photographs
    ? element("img", { src: `units/${layer}/${column}/${unit.unit}/crops.jpg?across=${side ? 3 : 2}`, alt: "", loading: "lazy", width: 216, height: 216 })
    : element("span", { className: "none", textContent: unit.dead ? "dead" : "no photograph left" });
  const most = unit.label ? `${Math.round(100 * unit.label_share)} % ${unit.label}` : "";
  return element("li", { className: "card" }, element("a", { href: address("units", [layer, column, unit.unit]) },
    picture, element("b", { textContent: unit.stands_for ?? name }), element("small", { textContent: unit.stands_for ? `${name}, ${most}` : most })));
}
