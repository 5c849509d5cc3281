// The ten views of the paper, each the very crop that the network gets, with what it alone says.

import { element } from "../../components/elements.js";
import { fill } from "../../components/states.js";
import { ask, picture } from "../../components/subject.js";
import { piece } from "./piece.js";

export function views(photograph, signal) {
  const content = element("div");
  fill(content, signal, async () => {
    const [answer, address] = await Promise.all([ask("views", { top: 3 }, photograph, signal), picture("views.png", {}, photograph, signal)]);
    const size = answer.views.map(({ box }) => box).reduce(([width, height], [, , right, bottom]) => [Math.max(width, right), Math.max(height, bottom)], [0, 0]);
    const say = (classes) => classes.map((one) => `${one.class} ${(100 * one.probability).toFixed(1)} %`);
    return [
      element("p", { textContent: `All ten together: ${say(answer.classes).join(", ")}.` }),
      element("ol", { className: "views", "aria-label": "The ten views" }, ...answer.views.map((view) => {
        const name = `${view.corner}${view.mirrored ? ", mirrored" : ""}`;
        const [first, ...others] = say(view.classes);
        return element("li", {}, piece(address, size, view.box, name), element("b", { textContent: first }),
          element("small", { textContent: name }), element("small", { textContent: others.join(", ") }));
      })),
    ];
  });
  return content;
}
