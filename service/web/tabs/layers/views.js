// The ten views of the paper, each the very crop that the network gets, with what it alone says.

import { element } from "../../components/elements.js";
import { fill } from "../../components/states.js";
import { picture } from "../../components/subject.js";
import { piece } from "./piece.js";

const percent = ({ probability }) => `${(100 * probability).toFixed(1)}\u00a0%`;

// A class and its probability on one line, however long its name is.
const said = (one, tag) => element(tag, { className: "said", title: one.class },
  element("span", { textContent: one.class }), " ", element("span", { textContent: percent(one) }));

export function views(photograph, answer, signal) {
  const content = element("div");
  fill(content, signal, async () => {
    const address = await picture("views.png", {}, photograph, signal);
    const size = answer.views.map(({ box }) => box).reduce(([width, height], [, , right, bottom]) => [Math.max(width, right), Math.max(height, bottom)], [0, 0]);
    return [
      element("p", { textContent: `All ten together: ${answer.classes.map((one) => `${one.class} ${percent(one)}`).join(", ")}.` }),
      element("ol", { className: "views", "aria-label": "The ten views" }, ...answer.views.map((view) => {
        const name = `${view.corner}${view.mirrored ? ", mirrored" : ""}`;
        return element("li", {}, piece(address, size, view.box, name), element("small", { textContent: name }),
          ...view.classes.map((one, i) => said(one, i ? "small" : "b")));
      })),
    ];
  });
  return content;
}
