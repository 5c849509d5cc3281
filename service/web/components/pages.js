// Answers that come by pages, with a button for the next as long as there is one.

import { element } from "./elements.js";
import { failure } from "./states.js";

// `first` is the first answer; `next(cursor)` asks for another; `add` shows each. `nextOf` finds an answer's cursor.
export function paged({ first, signal, next, add, text, nextOf = (answer) => answer.next }) {
  let cursor = nextOf(first);
  add(first);
  const told = element("div");
  const button = element("button", { type: "button", className: "more", textContent: text, hidden: !cursor, onclick: async () => {
    button.disabled = true;
    told.replaceChildren();
    try {
      const answer = await next(cursor);
      if (signal.aborted) return;
      add(answer);
      cursor = nextOf(answer);
      button.hidden = !cursor;
    } catch (error) {
      if (!signal.aborted) told.replaceChildren(failure(error));
    }
    button.disabled = false;
  } });
  return element("div", {}, told, button);
}
