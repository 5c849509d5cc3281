// What stands where an answer is not: it is on its way, there is nothing, or it failed.

import { element, sentences } from "./elements.js";

export const loading = (text = "Loading \u2026") => element("p", { className: "loading", role: "status", textContent: text });

export const empty = (...children) => element("p", { className: "empty", role: "status" }, ...children);

// What is there, but has not been made: 404, with the command that makes it.
export const isMissing = (error) => error.status === 404 && error.message.includes("`python -m ");

const HOPELESS = new Set([400, 404, 410, 413, 415, 422]);  // the same question has the same answer

// `again` is what the button does; without it there is none. What has not been made is no failure.
export function failure(error, again) {
  if (isMissing(error)) return empty(...sentences(error.message));
  return element("div", { className: "failure", role: "alert" },
    element("p", {}, ...sentences(error.message)),
    again && !HOPELESS.has(error.status) && element("button", { type: "button", textContent: "Try again", onclick: () => again() }));
}

const newest = new WeakMap();  // what each root was to be filled with last

// Shows what `work` gives in `root`: first that it loads, then the elements that it returns, or why there are none. What comes after
// the root was to be filled with something else is dropped.
export async function fill(root, signal, work) {
  newest.set(root, work);
  const isOver = () => signal.aborted || newest.get(root) !== work;
  root.setAttribute("aria-busy", "true");
  root.replaceChildren(loading());
  try {
    const shown = await work();
    if (!isOver()) root.replaceChildren(...[shown].flat());
  } catch (error) {
    if (!isOver()) root.replaceChildren(failure(error, () => fill(root, signal, work)));
  } finally {
    if (!isOver()) root.setAttribute("aria-busy", "false");
  }
}
