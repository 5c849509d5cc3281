// One unit: what it sees in the photographs that excite it most, and of the first layer its kernel.

import * as api from "../../api.js";
import { element } from "../../components/elements.js";
import { nameOf, thumbnail } from "../../components/photograph.js";
import { facts } from "../../components/table.js";
import { address, placeOf } from "../../router.js";
import { shown } from "./figures.js";
import { kernelParts } from "./kernel.js";
import { about, BEYOND, withoutAtlas } from "./layers.js";

export async function showUnit(root, layer, column, unit, context) {
  const { signal, title, step } = context;
  walked = { layer, step };
  title(nameOfUnit(layer, column, unit));
  const others = neighbours(layer, Number(column), Number(unit));
  root.append(element("p", { className: "leaves" },
    element("a", { href: address("units", [layer.layer, column]), textContent: `All units of ${layer.layer}${layer.columns > 1 ? `, column ${column}` : ""}` }),
    ...Object.entries(others).map(([text, parts]) => element("a", { href: address("units", parts), textContent: text })),
    element("small", { className: "quiet keys", textContent: "or the keys \u2190 and \u2192" })));
  const answer = await api.twice(`units/${layer.layer}/${column}/${unit}`, {}, signal);
  const { activity, atlas, note, kernel } = answer;
  if (activity?.stands_for) title(`${activity.stands_for}: ${nameOfUnit(layer, column, unit).toLowerCase()}`);
  if (kernel) root.append(...await kernelParts(answer, signal));
  if (!atlas) {
    root.append(withoutAtlas(note));
    return;
  }
  root.append(
    element("h3", { textContent: "What excites it most" }),
    element("p", { className: "quiet", textContent: `${about(atlas)}${layer.side ? ` ${BEYOND}` : ""}` }),
    answer.photographs.length
      ? element("ul", { className: "cards", "aria-label": "The most exciting photographs" }, ...answer.photographs.map((found) => photograph(found, answer, layer)))
      : element("p", { className: "empty", textContent: `No photograph excites this unit${atlas.removed ? " that is still there" : ""}.` }),
    inFigures(activity, layer));
}

function nameOfUnit({ layer, columns }, column, unit) {
  const what = layer === "conv1" ? "Kernel" : `${layer} unit`;
  const name = `${what} ${unit}${columns > 1 ? ` of column ${column}` : ""}`;
  return name[0].toUpperCase() + name.slice(1);
}

// The units before it and after it, across the columns.
function neighbours({ layer, columns, units }, column, unit) {
  const at = (index) => [layer, Math.floor(index / units), index % units];
  const index = column * units + unit;
  const found = {};
  if (index > 0) found.previous = at(index - 1);
  if (index + 1 < columns * units) found.next = at(index + 1);
  return found;
}

let walked = null;  // the layer that was shown last, and what leads to the next place

// Keys count from the address, so that none is lost while the unit before is still on its way.
window.addEventListener("keydown", (event) => {
  const busy = event.defaultPrevented || event.altKey || event.ctrlKey || event.metaKey || event.shiftKey;
  if (busy || event.target.closest?.("input, select, textarea, [role=tablist], header nav")) return;
  const { tab, parts: [layer, column, unit] } = placeOf(location.hash);
  if (tab !== "units" || unit === undefined || layer !== walked?.layer.layer) return;
  const others = neighbours(walked.layer, Number(column), Number(unit));
  const to = { ArrowLeft: others.previous, ArrowRight: others.next }[event.key];
  if (to) walked.step("units", to);
});

function inFigures(activity, { layer }) {
  if (activity.dead) return element("p", { textContent: "Dead: no photograph excites it above 0." });
  return facts([
    ["active", `in ${shown(activity.active, "%")} of the photographs${layer === "fc8" ? " its logit is above 0" : ""}`],
    ["mean", `${shown(activity.mean, "")}, of the largest activation in each photograph`],
    ["maximum", shown(activity.maximum, "")],
    ...(activity.label === null ? [] : [
      ["labels", `${activity.label || "without a label"}: ${shown(activity.label_share, "%")} of the ${activity.photographs} photographs above; `
        + `entropy ${shown(activity.label_entropy, " bits")}`]]),
  ]);
}

function placed(image, position) {
  image.style.objectPosition = position;
  return image;
}

function photograph(found, { layer, column, unit }, { side }) {
  const [left, top, right, bottom] = found.box;
  const seen = element("span", { className: "window" });
  Object.assign(seen.style, { left: `${100 * left}%`, top: `${100 * top}%`, width: `${100 * (right - left)}%`, height: `${100 * (bottom - top)}%` });
  const lies = (from, to) => ({ "-1": "100%", 0: "50%", 1: "0%" })[Math.sign(from + to - 1)];  // an edge of the view cuts it, the nearer one
  const crop = `units/${layer}/${column}/${unit}/photographs/${found.crop.split("/").at(-1)}`;
  return element("li", { className: "card" }, element("a", { href: address("search", [], { photo: found.id }), title: found.path },
    side > 0 && placed(element("img", { className: "crop", src: crop, alt: "", loading: "lazy" }), `${lies(left, right)} ${lies(top, bottom)}`),
    element("span", { className: "whole" }, element("img", { src: thumbnail(found.id), alt: "", loading: "lazy", width: 160, height: 160 }), side > 0 && seen),
    element("b", { textContent: nameOf(found) }),
    element("small", { textContent: shown(found.activation, "") })));
}
