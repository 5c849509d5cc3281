// One item: its photograph, what is known of it, and a button to remove it.

import * as api from "../../api.js";
import { element } from "../../components/elements.js";
import { keyField } from "../../components/key.js";
import { failure } from "../../components/states.js";
import { facts } from "../../components/table.js";
import { address } from "../../router.js";

export async function showItem(root, id, { signal, title, go }) {
  const item = await api.item(id, signal);
  title(item.path.split("/").at(-1));
  const told = element("div");
  const button = element("button", { textContent: "Remove it from the index" });
  const form = element("form", { className: "fields", onsubmit: async (event) => {
    event.preventDefault();
    button.disabled = true;
    told.replaceChildren();
    try {
      await api.change(`items/${id}`, { method: "DELETE" });
      go("collection", [], new URLSearchParams({ label: item.label }));
    } catch (error) {
      told.replaceChildren(failure(error));
    }
    button.disabled = false;
  } }, keyField(), button);
  root.append(element("div", { className: "item" },
    element("a", { href: `items/${id}/image` }, element("img", { src: `items/${id}/image`, alt: item.path,
      onerror: ({ target }) => { target.onerror = null; target.src = `items/${id}/thumbnail`; } })),
    element("div", {},
      facts([
        ["id", item.id], ["path", item.path],
        ["label", element("a", { href: address("collection", [], new URLSearchParams({ label: item.label })), textContent: item.label || "none" })],
        ["size", `${item.width} x ${item.height} pixels, ${item.size.toLocaleString("en")} bytes, ${item.format}`],
        ["added", new Date(item.added).toLocaleString("en")], ["SHA-256", item.sha256],
        ["elsewhere", element("a", { href: address("search", [], { photo: id }), textContent: "its neighbours" })],
      ]),
      element("details", {}, element("summary", { textContent: "Remove" }),
        element("p", { className: "quiet", textContent: "No search finds it then. This cannot be undone. A file that was uploaded here is deleted, any other is left alone." }),
        form, told))));
}
