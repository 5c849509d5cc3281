// The page starts: the bar of tabs, the tab of the address, and a line about what is served.

import * as api from "./api.js";
import { drawBar, start } from "./router.js";

const at = (id) => document.getElementById(id);

function showAbout({ model, index }) {
  const parts = [];
  if (model) parts.push(`${model.classes.length} classes`);
  if (index) parts.push(`${index.items.toLocaleString("en")} photographs indexed`);
  if (parts.length) at("about").textContent = `Two-GPU AlexNet of 2012: ${parts.join(", ")}.`;
}

at("skip").addEventListener("click", () => at("main").querySelector("h2").focus());
// A photograph that is dropped beside every place for it does not take the browser away from here.
for (const name of ["dragover", "drop"]) window.addEventListener(name, (event) => event.preventDefault());
drawBar(at("tabs"));
start(at("main"), at("tabs"));
api.info().then(showAbout, () => {});
