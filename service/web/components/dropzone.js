// A place for photographs of one's own: dropped anywhere, pasted, chosen as files, or taken by a camera.

import { element } from "./elements.js";

// `onFiles` gets the files; `shown` is the photograph that stands there now: { address, name }.
export function dropzone({ signal, several = true, onFiles, shown = null, invitation = "Drop a photograph here, paste one, or" }) {
  const take = (list) => {
    const files = [...list].filter((file) => file.type.startsWith("image/") || /\.\w+$/.test(file.name));
    if (files.length) onFiles(several ? files : files.slice(0, 1));
  };
  const picker = (text, properties) => {
    const input = element("input", { type: "file", accept: "image/*", ...properties });
    input.addEventListener("change", () => {
      take(input.files);
      input.value = "";  // choosing the same file again is a change again
    });
    return element("label", { className: "picker" }, text, input);
  };
  const zone = element("div", { className: "dropzone" },
    shown && element("img", { src: shown.address, alt: shown.name, onerror: (event) => { event.target.hidden = true; } }),
    shown && element("b", { textContent: shown.name }),
    element("span", {}, `${invitation} `, picker(several ? "choose files" : "choose a file", { multiple: several })),
    navigator.maxTouchPoints > 0 && element("span", {}, "or ", picker("take one", { capture: "environment" })));
  for (const name of ["dragover", "dragleave", "drop"]) {
    window.addEventListener(name, () => zone.classList.toggle("over", name === "dragover"), { signal });
  }
  window.addEventListener("drop", (event) => take(event.dataTransfer.files), { signal });
  window.addEventListener("paste", (event) => take(event.clipboardData.files), { signal });
  return zone;
}
