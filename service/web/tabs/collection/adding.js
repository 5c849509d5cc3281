// Photographs are added to the index, with the key.

import * as api from "../../api.js";
import { dropzone } from "../../components/dropzone.js";
import { choices, element, field } from "../../components/elements.js";
import { keyField } from "../../components/key.js";
import { failure } from "../../components/states.js";
import { table } from "../../components/table.js";
import { address } from "../../router.js";

export async function showAdding(root, place, { signal }) {
  const { model, index, settings } = await api.info(signal);
  if (!model || !index) await api.ready(signal);  // says why not
  const [labels, list] = choices(model.classes);
  const label = element("input", { placeholder: "none", autocomplete: "off", maxLength: 200 });
  label.setAttribute("list", list);
  const told = element("div", { "aria-live": "polite" });
  const key = keyField();
  root.append(
    element("p", { className: "quiet", textContent: "Searches find a photograph as soon as it is added. A file that is there already keeps its label." }),
    element("form", { className: "fields", onsubmit: (event) => event.preventDefault() }, key, field("label of all", label), labels),
    dropzone({ signal, onFiles: (files) => {
      if (!key.querySelector("input").reportValidity()) return;
      add(files, label.value, settings, told, signal);
    } }),
    told);
}

// So many in a request as the service takes, one request after the other.
async function add(files, label, { max_images: most, max_request_bytes: bytes }, told, signal) {
  told.setAttribute("aria-busy", "true");
  const rows = [];
  try {
    for (const part of parts(files, most, bytes - 65_536)) {
      told.replaceChildren(element("p", { textContent: `${rows.length} of ${files.length} \u2026` }));
      const form = new FormData();
      if (label) form.append("label", label);
      for (const file of part) form.append("image", file, file.name || "pasted");
      const answer = await api.change("items", { method: "POST", body: form, signal });
      rows.push(...answer.results.map(outcome));
    }
    told.replaceChildren();
  } catch (error) {
    if (signal.aborted) return;
    told.replaceChildren(failure(error));
  }
  told.setAttribute("aria-busy", "false");
  if (rows.length) told.append(table(["photograph", "outcome"], rows, { label: "What became of the photographs" }));
}

function* parts(files, most, bytes) {
  let part = [];
  let size = 0;
  for (const file of files) {
    if (part.length === most || (part.length && size + file.size > bytes)) {
      yield part;
      [part, size] = [[], 0];
    }
    part.push(file);
    size += file.size;
  }
  if (part.length) yield part;
}

function outcome({ name, id, known, error }) {
  if (error) return [name, error.detail];
  return [name, [element("a", { href: address("collection", [id]), textContent: `item ${id}` }), known ? ", which was there already" : ", added"]];
}
