// Events of the page: a dropped, pasted or chosen photograph, or a click on a neighbour, becomes a question to the service.

import * as api from "./api.js";
import * as duplicates from "./duplicates.js";
import * as layer from "./layer.js";
import * as view from "./view.js";

const at = (id) => document.getElementById(id);
const labels = { label: new Set(), exclude_label: new Set() };
const options = () => ({
  k: at("k").valueAsNumber || 12,
  mode: at("mode").value,
  label: [...labels.label],
  exclude_label: [...labels.exclude_label],
  path_prefix: at("prefix").value,
  added_after: timeOf("after"),
  added_before: timeOf("before"),
});
const timeOf = (id) => at(id).value && new Date(at(id).value).toISOString();
const NEAREST = {
  euclidean: "Nearest first, by Euclidean distance between FC7 features.",
  cosine: "Nearest first, by cosine distance: the angle between FC7 features, whatever their lengths.",
  hamming: "Nearest first, by how many bits of their short codes differ.",
};
const NOTHING = { neighbors: [], next: null };
let asked = 0;
let lastQuestion = null;
let current = null;  // the item or file whose neighbours are shown
const examples = { like: new Map(), unlike: new Map() };  // items and files by what tells them apart
const keyOf = ({ id, address }) => address ?? id;
const ofFile = (file) => ({ file, path: file.name || "pasted photograph", address: URL.createObjectURL(file) });
const ON_NEIGHBOR = { pick: askItem, like: (item) => addExample("like", item), unlike: (item) => addExample("unlike", item) };

// Only the newest question's answer is shown, whatever order the answers come in.
async function ask(question) {
  lastQuestion = question;
  const mine = ++asked;
  view.showProblem("");
  view.busy(true);
  try {
    const showAnswer = await question();
    if (mine === asked) showAnswer();
  } catch (error) {
    if (mine === asked) {
      view.showProblem(error.message);
      view.showClasses([]);
      show("", NOTHING);
    }
  } finally {
    if (mine === asked) view.busy(false);
  }
}

// A page of neighbours, and a button for the one after it while `following` says how to ask for that.
function show(hint, page, following) {
  view.showNeighbors(page.note ?? hint, page, ON_NEIGHBOR);
  view.offerMore(page.next && (() => more(page.next, following)));
}

async function more(cursor, following) {
  const mine = asked;
  view.offerMore(null);
  try {
    const page = await following(cursor);
    if (mine !== asked) return;
    view.addNeighbors(page, ON_NEIGHBOR);
    view.offerMore(page.next && (() => more(page.next, following)));
  } catch (error) {
    if (mine === asked) view.showProblem(error.message);
  }
}

// The first example joins what was asked about.
function addExample(kind, item) {
  if (current && !examples.like.size && !examples.unlike.size) examples.like.set(keyOf(current), current);
  for (const items of Object.values(examples)) items.delete(keyOf(item));
  examples[kind].set(keyOf(item), item);
  askExamples();
}

function askExamples() {
  const [like, unlike] = [examples.like, examples.unlike].map((items) => [...items.values()]);
  view.showExamples(examples, (kind, key) => {
    examples[kind].delete(key);
    askExamples();
  });
  if (!like.length) return;
  ask(async () => {
    const chosen = options();
    const page = (cursor) => api.neighborsOfExamples(like, unlike, { ...chosen, cursor });
    const first = await page();
    return () => {
      view.showClasses([]);
      show(`Of the examples together. ${NEAREST[first.metric]}`, first, page);
    };
  });
}

function startAnew(item) {
  const before = [current, ...examples.like.values(), ...examples.unlike.values()];
  for (const one of new Set(before)) if (one?.address) URL.revokeObjectURL(one.address);
  current = item;
  for (const items of Object.values(examples)) items.clear();
  view.showExamples(examples);
}

function askFile(file) {
  startAnew(ofFile(file));
  location.hash = "";
  view.showQuery(URL.createObjectURL(file), current.path);
  ask(async () => {
    const chosen = options();
    const page = (cursor) => api.neighborsOfFile(file, { ...chosen, cursor });
    const [classes, neighbors] = await Promise.allSettled([api.classify(file, at("ten").checked ? 10 : 1), page()]);
    if (classes.status === "rejected") throw classes.reason;
    return () => {
      view.showClasses(classes.value);
      show(NEAREST[neighbors.value?.metric] ?? "", neighbors.value ?? NOTHING, page);
      if (neighbors.reason) view.showProblem(neighbors.reason.message);
    };
  });
}

function askItem(item) {
  startAnew(item);
  location.hash = "";
  view.showQuery(`items/${item.id}/image`, item.path);
  ask(async () => {
    const chosen = options();
    const page = (cursor) => api.neighborsOfItem(item.id, { ...chosen, cursor });
    const first = await page();
    return () => {
      view.showClasses([]);
      show(`Of an indexed photograph. ${NEAREST[first.metric]}`, first, page);
    };
  });
}

async function offerExamples(count) {
  if (!count) return;
  const ids = Array.from({ length: Math.min(12, count) }, (_, i) => Math.floor((i * count) / Math.min(12, count)));
  const items = await Promise.allSettled(ids.map(api.item));  // some may have been removed
  const neighbors = items.filter((item) => item.value).map((item) => item.value);
  if (!asked) view.showNeighbors(at("hint").textContent, { neighbors }, ON_NEIGHBOR);
}

at("file").addEventListener("change", (event) => {
  if (event.target.files[0]) askFile(event.target.files[0]);
  event.target.value = "";  // choosing the same file again is a change again
});
function askAgain() {
  if (lastQuestion) ask(lastQuestion);
}

// What is typed or picked becomes one more label, to find or to leave out; a click on it takes it back.
function chooseLabel(name, input) {
  if (!input.value) return;
  labels[name].add(input.value);
  input.value = "";
  changeLabels();
}

function changeLabels() {
  view.showChosen(labels, (name, label) => {
    labels[name].delete(label);
    changeLabels();
  });
  askAgain();
}

for (const kind of ["like", "unlike"]) {
  at(`${kind}-file`).addEventListener("change", (event) => {
    if (event.target.files[0]) addExample(kind, ofFile(event.target.files[0]));
    event.target.value = "";
  });
}
for (const option of ["ten", "k", "mode", "prefix", "after", "before"]) at(option).addEventListener("change", askAgain);
at("label").addEventListener("change", (event) => chooseLabel("label", event.target));
at("exclude").addEventListener("change", (event) => chooseLabel("exclude_label", event.target));
for (const name of ["dragover", "dragleave", "drop"]) {
  window.addEventListener(name, (event) => {
    event.preventDefault();
    at("drop").classList.toggle("over", name === "dragover");
  });
}
window.addEventListener("drop", (event) => event.dataTransfer.files[0] && askFile(event.dataTransfer.files[0]));
window.addEventListener("paste", (event) => event.clipboardData.files[0] && askFile(event.clipboardData.files[0]));

function pick(item) {
  askItem(item);
  showView();  // before the browser tells of the new address
  at("title").focus();
}

// The page has two views, told apart by the address, so that the browser's own buttons go between them.
function showView() {
  const isDuplicates = location.hash === "#near-duplicates";
  at("search").hidden = isDuplicates;
  at("duplicates").hidden = !isDuplicates;
  at("to-search").ariaCurrent = isDuplicates ? null : "page";
  at("to-duplicates").ariaCurrent = isDuplicates ? "page" : null;
  if (isDuplicates) duplicates.show(pick);
}
window.addEventListener("hashchange", showView);
showView();

api.info().then((info) => {
  view.showAbout(info);
  if (!info.model || !info.index) return api.neighborsOfItem(0, {});
  return offerExamples(info.index.items);
}).catch((error) => view.showProblem(error.message));
layer.start();
