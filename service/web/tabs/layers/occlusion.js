// By how much a class's probability falls when parts of the photograph are greyed.

import { element, field, select } from "../../components/elements.js";
import { heated, legend } from "../../components/heat.js";
import { classList } from "../../components/photograph.js";
import { fill } from "../../components/states.js";
import { ask } from "../../components/subject.js";

const percent = (share) => `${(100 * share).toFixed(1)} %`;

export async function occlusion(photograph, query, info, changed, signal) {
  const content = element("div");
  const classes = Object.fromEntries(info.model.classes.map((name) => [name, name]));
  const chosen = select({ "": "the most probable", ...classes }, query.get("class") ?? "", { onchange: () => {
    if (chosen.value) query.set("class", chosen.value);
    else query.delete("class");
    changed();
    draw();
  } });
  const draw = () => fill(content, signal, async () => {
    const answer = await ask("occlusion", { class: query.get("class") }, photograph, signal);
    return [
      element("p", { textContent: `${answer.class} has a probability of ${percent(answer.probability)}, and ${percent(answer.lowest)} with the square `
        + `greyed that lowers it most (outlined). ${answer.windows} squares were greyed, one at a time, with the mean of the training photographs.` }),
      element("div", { className: "two" },
        heated(answer.heat, { name: "the photograph", worth: "what the class hangs on lies", box: answer.covered }),
        element("div", { className: "then" }, element("p", { className: "quiet", textContent: "The classes with the outlined square greyed:" }), classList(answer.classes))),
      legend("greyed, the class is less probable", "greyed, it is more probable"),
    ];
  });
  draw();
  return element("div", {}, element("div", { className: "fields" }, field("Class", chosen)), content);
}
