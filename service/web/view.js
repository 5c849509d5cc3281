// Answers as elements of the page; text is only ever set as text.

const at = (id) => document.getElementById(id);

export function element(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

export function showClasses(classes) {
  at("classes").replaceChildren(...classes.map((entry) => {
    const share = `${(100 * entry.probability).toFixed(1)}`;
    const row = element("li", {}, element("span", { textContent: entry.class }), element("span", { textContent: `${share} %` }));
    row.style.setProperty("--share", `${share}%`);
    return row;
  }));
}

export function showNeighbors(hint, page, on) {
  const hadFocus = at("neighbors").contains(document.activeElement);
  at("hint").textContent = hint;
  at("neighbors").replaceChildren();
  addNeighbors(page, on);
  if (hadFocus) at("neighbors").querySelector("button")?.focus();
}

export function addNeighbors({ neighbors, metric }, on) {
  at("neighbors").append(...neighbors.map((found) => {
    const label = found.label || found.path;
    const neighbor = element("button", { type: "button", title: `${found.path}\nClick: its neighbours`, onclick: () => on.pick(found) },
      element("img", { src: `items/${found.id}/thumbnail`, alt: "", loading: "lazy" }),
      element("b", { textContent: label }),
      element("small", { textContent: distance(found.distance, metric) }),
    );
    return element("li", {}, neighbor, element("span", { className: "votes" },
      element("button", { type: "button", title: `Like ${label}, too`, ariaLabel: `Like ${label}, too`, onclick: () => on.like(found) }, "+"),
      element("button", { type: "button", title: `Unlike ${label}`, ariaLabel: `Unlike ${label}`, onclick: () => on.unlike(found) }, "\u2212"),
    ));
  }));
}

export function distance(value, metric) {
  if (value === undefined) return "";
  if (metric === "hamming") return value === 1 ? "1 bit" : `${value} bits`;
  if (metric === "cosine") return `distance (cosine) ${digits(value, 3)}`;
  return `distance ${digits(value, 1)}`;
}

// So many digits after the point, or two that count where these would be zeros.
const digits = (value, after) => (value && value < 10 ** -after ? value.toPrecision(2) : value.toFixed(after));

export function offerMore(onMore) {
  at("more").hidden = !onMore;
  at("more").onclick = onMore;
}

export function showChosen(labels, onTakeBack) {
  const buttons = Object.entries(labels).flatMap(([name, chosen]) => [...chosen].map((label) => {
    const text = name === "label" ? label : `not ${label}`;
    const button = element("button", { type: "button", title: "Click: take it back", onclick: () => onTakeBack(name, label) }, text);
    return element("li", {}, button);
  }));
  at("chosen").hidden = !buttons.length;
  at("chosen").replaceChildren(...buttons);
}

export function showExamples(examples, onTakeBack) {
  for (const [kind, items] of Object.entries(examples)) {
    at(kind).replaceChildren(...[...items].map(([key, item]) => element("li", {},
      element("button", { type: "button", title: `${item.path}\nClick: take it back`, onclick: () => onTakeBack(kind, key) },
        element("img", { src: item.address ?? `items/${item.id}/thumbnail`, alt: item.label || item.path })),
    )));
  }
  at("examples").hidden = !(examples.like.size || examples.unlike.size);
  if (at("examples").hidden) return;
  at("query").hidden = true;
  at("invite").textContent = examples.like.size
    ? "Several examples, below; drop a photograph here to begin anew"
    : "Choose with + what neighbours are like";
}

export function showQuery(source, name) {
  URL.revokeObjectURL(at("query").src);
  Object.assign(at("query"), { src: source, alt: name, hidden: false, onerror: () => { at("query").hidden = true; } });
  at("invite").textContent = `${name}: drop another to replace it`;
}

export function showProblem(text) {
  at("problem").textContent = text;
  at("problem").hidden = !text;
}

export function busy(on) {
  at("found").setAttribute("aria-busy", String(on));
}

export function showAbout(info) {
  const parts = [];
  if (info.model) parts.push(`${info.model.classes.length} classes`);
  if (info.index) parts.push(`${info.index.items.toLocaleString("en")} photographs indexed`);
  if (parts.length) at("about").textContent = `Two-GPU AlexNet of 2012: ${parts.join(", ")}.`;
  at("labels").replaceChildren(...(info.model?.classes ?? []).map((name) => element("option", { value: name })));
  if (!info.index) return;
  at("modes").hidden = !info.index.bits;
  at("mode").options[0].textContent = `${info.index.mode} (as set)`;
  at("mode").title = info.index.reason;
}
