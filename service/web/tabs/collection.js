// Collection: its labels and items, an item at #/collection/17, near-duplicates at #/collection/near-duplicates, and changes.

import { element } from "../components/elements.js";
import { address } from "../router.js";
import { showAdding } from "./collection/adding.js";
import { showDuplicates } from "./collection/duplicates.js";
import { showItem } from "./collection/item.js";
import { showItems } from "./collection/items.js";

const VIEWS = { "": ["Labels and items", showItems], "near-duplicates": ["Near-duplicates", showDuplicates], add: ["Add photographs", showAdding] };

export function show(root, place, context) {
  const [view = ""] = place.parts;
  root.append(element("nav", { className: "views", "aria-label": "Views of the collection" },
    ...Object.entries(VIEWS).map(([name, [text]]) => element("a", {
      href: address("collection", name ? [name] : []), textContent: text, ariaCurrent: name === view ? "page" : null }))));
  if (/^\d+$/.test(view)) return showItem(root, view, context);
  if (!VIEWS[view]) throw new Error(`The collection has no view ${view}.`);
  return VIEWS[view][1](root, place, context);
}
