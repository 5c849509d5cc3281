// What stands where an answer is not: it is on its way, there is nothing, or it failed.

import { element } from "./elements.js";

export const loading = (text = "Loading \u2026") => element("p", { className: "loading", role: "status", textContent: text });

export const empty = (...children) => element("p", { className: "empty", role: "status" }, ...children);

// `again` is what the button does; without it there is none.
export function failure(error, again) {
  return element("div", { className: "failure", role: "alert" },
    element("p", { textContent: error.message }),
    again && element("button", { type: "button", textContent: "Try again", onclick: () => again() }));
}

// Shows what `work` gives in `root`: first that it loads, then the elements that it returns, or why there are none.
export async function fill(root, signal, work) {
  root.setAttribute("aria-busy", "true");
  root.replaceChildren(loading());
  try {
    const shown = await work();
    if (!signal.aborted) root.replaceChildren(...[shown].flat());
  } catch (error) {
    if (!signal.aborted) root.replaceChildren(failure(error, () => fill(root, signal, work)));
  } finally {
    if (!signal.aborted) root.setAttribute("aria-busy", "false");
  }
}
