// Map: the collection on a plane, at #/map?x=..&y=..&zoom=..; a photograph of it at ?photo=.., its labels at ?label=..

import * as api from "../api.js";
import { element } from "../components/elements.js";
import { card, cards, thumbnail } from "../components/photograph.js";
import { empty } from "../components/states.js";
import { facts } from "../components/table.js";
import { address } from "../router.js";
import { Labels, legend } from "./map/labels.js";
import { fetchPoints, outlined, within } from "./map/points.js";
import { Stage } from "./map/stage.js";

const LISTED = 60;  // photographs at a time
const FOUND = 6;  // times as near as the whole map: where a photograph is shown that a link names

export async function show(root, place, { signal, replace }) {
  const made = await madeMap(signal);
  if (!made) return root.append(without());
  const { answer, points } = made;
  const { query } = place;
  const labels = new Labels(answer.labels, points, query.getAll("label"), query.get("only") === "yes");
  const list = element("section", { "aria-live": "polite", className: "list" });
  const chosen = element("div", { className: "chosen", "aria-live": "polite" });
  let photo = query.get("photo");
  const stage = new Stage(points, labels, {
    settled: remember,
    chose: choose,
    lassoed: (outline) => listed(outlined(points, outline, labels.isShown), "within the outline"),
  }, signal);

  function remember() {
    const { x, y, zoom } = stage.view;
    replace("map", [], {
      x: x.toFixed(4), y: y.toFixed(4), zoom: zoom.toFixed(2), photo, label: labels.isUsual ? [] : labels.names, only: labels.only ? "yes" : "",
    });
  }

  function choose(i) {
    photo = i < 0 ? null : points.ids[i];
    stage.ring(i);
    chosen.replaceChildren(...(i < 0 ? [] : cardOf(i)));
    remember();
  }

  function cardOf(i) {
    const id = points.ids[i];
    return [
      element("img", { src: thumbnail(id), alt: labels.nameOf(i) || `photograph ${id}`, width: 96, height: 96 }),
      element("p", {}, element("b", { textContent: labels.nameOf(i) || "without a label" }), element("br"),
        element("a", { href: address("search", [], { photo: id }), textContent: `Search from photograph ${id}` })),
      element("button", { type: "button", textContent: "\u00d7", "aria-label": "Close", onclick: () => choose(-1) }),
    ];
  }

  function listed(found, where) {
    found.sort((one, other) => points.ids[one] - points.ids[other]);
    const count = found.length === 1 ? "1 photograph" : `${found.length} photographs`;
    const grid = cards(`Photographs ${where}`);
    const more = element("button", { type: "button", textContent: "More", onclick: append });
    function append() {
      const next = found.slice(grid.children.length, grid.children.length + LISTED);
      grid.append(...next.map((i) => card(
        { id: points.ids[i], label: labels.nameOf(i) || `photograph ${points.ids[i]}`, path: "" },
        { href: address("search", [], { photo: points.ids[i] }), title: "Search from this photograph" })));
      more.hidden = grid.children.length === found.length;
    }
    append();
    list.replaceChildren(
      element("h3", { textContent: `${count} ${where}` }),
      element("p", { className: "quiet", textContent: labels.summary(found) }),
      grid, more);
  }

  const inView = () => listed(within(points, ...stage.view.bounds(), labels.isShown), "in view");
  root.append(
    introduction(answer),
    element("div", { className: "around" },
      element("div", {}, stage.element, bar(stage, inView), chosen),
      legend(labels, () => { stage.repaint(); remember(); })),
    list, about(answer, stage));
  stage.start();
  placed(stage, points, labels, query, choose);
}

const without = () =>
  empty("This index has no map. ", element("code", { textContent: "python -m indexer.build --map" }), " makes one: it places every photograph near those that are like it by FC7.");

// The map and its points; nothing where the index has none. Where it changed between the two answers, both are asked for again.
async function madeMap(signal, again = true) {
  try {
    const answer = await api.get("map", {}, signal);
    const points = await fetchPoints(`map/points?${answer.points.split("?")[1]}`, signal);
    return { answer, points };
  } catch (error) {
    if (error.status !== 404) throw error;
    if (error.message.includes("no map")) return null;
    if (!again) throw error;
    return madeMap(signal, false);
  }
}

function placed(stage, points, labels, query, choose) {
  const numbers = ["x", "y", "zoom"].map((name) => (query.get(name) === null ? NaN : Number(query.get(name))));
  const i = query.get("photo") === null ? -1 : points.ids.indexOf(Number(query.get("photo")));
  if (i >= 0 && !Number.isFinite(numbers[0])) numbers.splice(0, 3, points.places[2 * i], points.places[2 * i + 1], FOUND);
  stage.view.set(...numbers);
  stage.moved();
  if (i >= 0) choose(i);
}

function introduction({ shown, since, removed, layer }) {
  const notes = [
    `${shown.toLocaleString("en")} photographs; those that are near each other are alike by ${layer.toUpperCase()}.`,
    since > 0 && `${since.toLocaleString("en")} came since the map was made and are not on it.`,
    removed > 0 && `${removed.toLocaleString("en")} ${removed === 1 ? "was" : "were"} removed since.`,
  ];
  return element("p", { className: "quiet", textContent: notes.filter(Boolean).join(" ") });
}

function bar(stage, inView) {
  const button = (text, onclick, properties = {}) => element("button", { type: "button", textContent: text, onclick, ...properties });
  const lasso = button("Lasso", () => {
    stage.lasso = !stage.lasso;
    lasso.ariaPressed = stage.lasso;
  }, { ariaPressed: "false", title: "Draw around photographs; or drag with Shift" });
  return element("div", { className: "buttons" },
    button("+", () => stage.zoom(1.5), { ariaLabel: "Nearer" }),
    button("\u2212", () => stage.zoom(1 / 1.5), { ariaLabel: "Farther" }),
    button("Whole map", () => stage.whole()), lasso, button("List what is in view", inView));
}

function about(answer, stage) {
  const { method, library, parameters, neighbors, sampled } = answer;
  const rows = [["made by", `${method}${library && `, ${library}`}`], ...Object.entries(parameters).map(([name, value]) => [name.replaceAll("_", " "), value])];
  if (neighbors) {
    rows.push(["trustworthiness", `${answer.trustworthiness.toFixed(3)} (1: nothing is near here that is far by the features)`],
      [`of the ${neighbors} neighbours by the features`, `${(100 * answer.neighbor_recall).toFixed(0)} % are the nearest here too (${sampled} photographs looked at)`]);
  }
  rows.push(["drawn by", stage.kind], ["model", answer.model.slice(0, 12)], ["layer", answer.layer], ["version of the index", answer.index_version]);
  return element("details", {}, element("summary", { textContent: "How the map was made, and how far to trust it" }),
    element("p", { textContent: "A plane cannot keep all distances of 4096 dimensions. Near means alike; how far apart two groups lie, and how large they are, means little." }),
    facts(rows));
}
