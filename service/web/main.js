// Events of the page: a dropped, pasted or chosen photograph, or a click on a neighbour, becomes a question to the service.

import * as api from "/web/api.js";
import * as view from "/web/view.js";

const at = (id) => document.getElementById(id);
const howMany = () => at("k").valueAsNumber || 12;
const NEAREST = "Nearest first, by Euclidean distance between FC7 features.";
let asked = 0;
let lastQuestion = null;

// Only the newest question's answer is shown, whatever order the answers come in.
async function ask(question) {
  lastQuestion = question;
  const mine = ++asked;
  view.showProblem("");
  view.busy(true);
  try {
    const show = await question();
    if (mine === asked) show();
  } catch (error) {
    if (mine === asked) {
      view.showProblem(error.message);
      view.showClasses([]);
      view.showNeighbors("Neighbours", "", [], askItem);
    }
  } finally {
    if (mine === asked) view.busy(false);
  }
}

function askFile(file) {
  view.showQuery(URL.createObjectURL(file), file.name || "pasted photograph");
  ask(async () => {
    const [classes, neighbors] = await Promise.allSettled([
      api.classify(file, at("ten").checked ? 10 : 1),
      api.neighborsOfFile(file, howMany()),
    ]);
    if (classes.status === "rejected") throw classes.reason;
    return () => {
      view.showClasses(classes.value);
      view.showNeighbors("Neighbours", NEAREST, neighbors.value ?? [], askItem);
      if (neighbors.reason) view.showProblem(neighbors.reason.message);
    };
  });
}

function askItem(item) {
  view.showQuery(item.image, item.path);
  ask(async () => {
    const neighbors = await api.neighborsOfItem(item.id, howMany());
    return () => {
      view.showClasses([]);
      view.showNeighbors("Neighbours", "Of an indexed photograph; it is its own nearest.", neighbors, askItem);
    };
  });
}

async function offerExamples(count) {
  if (!count) return;
  const ids = Array.from({ length: Math.min(12, count) }, (_, i) => Math.floor((i * count) / Math.min(12, count)));
  const items = await Promise.all(ids.map(api.item));
  if (!asked) view.showNeighbors("Neighbours", at("hint").textContent, items, askItem);
}

at("file").addEventListener("change", (event) => {
  if (event.target.files[0]) askFile(event.target.files[0]);
  event.target.value = "";  // choosing the same file again is a change again
});
for (const option of ["ten", "k"]) at(option).addEventListener("change", () => lastQuestion && ask(lastQuestion));
for (const name of ["dragover", "dragleave", "drop"]) {
  window.addEventListener(name, (event) => {
    event.preventDefault();
    at("drop").classList.toggle("over", name === "dragover");
  });
}
window.addEventListener("drop", (event) => event.dataTransfer.files[0] && askFile(event.dataTransfer.files[0]));
window.addEventListener("paste", (event) => event.clipboardData.files[0] && askFile(event.clipboardData.files[0]));

api.info().then((info) => {
  view.showAbout(info);
  if (!info.model || !info.index) return api.neighborsOfItem(0, 1);
  return offerExamples(info.index.items);
}).catch((error) => view.showProblem(error.message));
api.filters().then(view.showColumns).catch(() => {});
