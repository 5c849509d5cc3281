// A piece of a larger picture, which is fetched once for all of its pieces.

import { element } from "../../components/elements.js";

// `size` is the width and height of the whole, `box` the left, top, right and bottom of the piece, in the same unit.
export function piece(address, [width, height], [left, top, right, bottom], name) {
  const [across, down] = [right - left, bottom - top];
  const share = (start, whole, part) => (whole > part ? `${(100 * start) / (whole - part)}%` : "0");
  const made = element("span", { className: "piece", role: "img", "aria-label": name });
  Object.assign(made.style, {
    backgroundImage: `url("${address}")`,
    backgroundSize: `${(100 * width) / across}% ${(100 * height) / down}%`,
    backgroundPosition: `${share(left, width, across)} ${share(top, height, down)}`,
    aspectRatio: `${across} / ${down}`,
  });
  return made;
}
