// What is asked about one photograph: one of one's own is sent, an indexed one is named.

import * as api from "../api.js";
import { queryOf } from "../router.js";

const at = (path, parameters, photograph) => `${path}?${queryOf({ ...parameters, id: photograph.id })}`;

export function ask(path, parameters, photograph, signal) {
  if (photograph.file) return api.post(path, parameters, [["image", photograph.file]], signal);
  return api.call(at(path, parameters, photograph), { method: "POST", signal });
}

// An answer that is a picture, as an address that holds until the tab is left.
export async function picture(path, parameters, photograph, signal) {
  const body = photograph.file ? new FormData() : undefined;
  body?.append("image", photograph.file);
  const made = await api.blob(at(path, parameters, photograph), { method: "POST", body, signal });
  const address = URL.createObjectURL(made);
  signal.addEventListener("abort", () => URL.revokeObjectURL(address));
  return address;
}
