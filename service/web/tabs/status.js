// Status: what is served, and how it is doing.

import * as api from "../api.js";
import { element } from "../components/elements.js";
import { facts } from "../components/table.js";

export async function show(root, place, { signal }) {
  const { version, model, index } = await api.info(signal);
  root.append(
    element("h3", { textContent: "Model" }),
    model ? facts([["fingerprint", model.fingerprint], ["profile", model.profile], ["classes", model.classes.length]]) : "none",
    element("h3", { textContent: "Index" }),
    index ? facts([["version", index.version], ["photographs", index.items]]) : "none",
    element("h3", { textContent: "Service" }),
    facts([["version", version], ["description of the API", element("a", { href: "docs", textContent: "docs" })]]));
}
