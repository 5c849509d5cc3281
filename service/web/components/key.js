// The key of the service, which changes need: typed here, kept by this window until it is closed, and sent with changes alone.

import * as api from "../api.js";
import { element, field } from "./elements.js";

export function keyField() {
  const input = element("input", { type: "password", value: api.key.get(), autocomplete: "off", spellcheck: false, required: true,
    oninput: () => api.key.set(input.value) });
  return field("key", input, { title: "FC7_API_KEY of the service; kept by this window until it is closed" });
}
