// Invariance: how far FC7, the code and the neighbours of a photograph move when it is perturbed, beside the collection's.
// #/invariance?photo=17&measure=angle

import * as api from "../api.js";
import { dropzone } from "../components/dropzone.js";
import { element, field, select } from "../components/elements.js";
import { thumbnail } from "../components/photograph.js";
import { empty, fill } from "../components/states.js";
import { hold, photographOf } from "../components/uploads.js";
import { MEASURES, perturbations, wholeTable } from "./invariance/curves.js";

export async function show(root, { query }, { signal, title, go, replace }) {
  const reference = query.get("photo");
  const photograph = reference && photographOf(reference);
  const onFiles = ([file]) => go("invariance", [], { photo: hold(file), measure: query.get("measure") });
  const own = photograph && { address: photograph.address ?? thumbnail(photograph.id), name: photograph.path ?? `photograph ${photograph.id}` };
  const found = element("div", { className: "found" });
  root.append(
    element("p", { textContent: "A feature that ignores light, colour or position stays where it is when a photograph changes in it. "
      + "Each curve says how far a photograph, perturbed more and more, is from itself." }),
    dropzone({ signal, several: false, onFiles, shown: own || null }),
    found);
  if (own) title(`What FC7 ignores of ${own.name}`);
  await fill(found, signal, async () => {
    const [collection, answer] = await Promise.all([reportOf(signal), photograph && measured(photograph, signal)]);
    if (!collection.report && !answer) return empty(`${collection.missing} Or choose a photograph above, to measure it alone.`);
    return drawn(collection, answer, query, replace);
  });
}

// The collection's report, or why there is none.
async function reportOf(signal) {
  try {
    return await api.get("reports/invariance", {}, signal);
  } catch (error) {
    if (error.status !== 404) throw error;
    return { missing: `${error.message}.` };
  }
}

const measured = ({ id, file }, signal) => (file
  ? api.post("invariance", { pictures: true }, [["image", file]], signal)
  : api.post("invariance", { pictures: true, id }, [], signal));

function drawn({ report, missing }, answer, query, replace) {
  const offered = Object.fromEntries(Object.entries(MEASURES).filter(([name]) => has(answer, report, name)).map(([name, { text }]) => [name, text]));
  const asked = query.get("measure");
  const chosen = asked in offered ? asked : "angle";
  const charts = element("div", { className: "perturbations" });
  const draw = (measure) => charts.replaceChildren(...perturbations(measure, answer, report));
  const control = select(offered, chosen);
  control.addEventListener("change", () => {
    replace("invariance", [], { photo: query.get("photo"), measure: control.value });
    draw(control.value);
  });
  draw(chosen);
  return [
    element("div", { className: "fields" }, field("How far by", control)),
    element("p", { className: "quiet", textContent: report ? about(report) : `There are no curves of the collection: ${missing}` }),
    charts,
    wholeTable(answer, report),
  ];
}

function has(answer, report, measure) {
  if (answer) return answer.curves[0].points[0][measure] !== null;
  return measure in report.networks.curves[0].points[0].measures;
}

function about({ photographs, data, index_version, created }) {
  return `The collection: ${photographs} photographs of ${data}, against version ${index_version} of the index, measured ${created.slice(0, 10)}. `
    + "Bands hold 95 of 100 means over other photographs. Dashed lines are the distances between two photographs.";
}
