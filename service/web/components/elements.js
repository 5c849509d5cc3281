// Elements of the page; text is only ever set as text.

// What the element has no property for, as aria-label, is set as an attribute; children that are null or false are left out.
export function element(tag, properties = {}, ...children) {
  return filled(document.createElement(tag), properties, children);
}

const SVG = "http://www.w3.org/2000/svg";

// As `element`, of a drawing; all of its properties are attributes.
export function drawn(tag, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

function filled(made, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (name in made) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

export const figure = (shown, caption) => element("figure", {}, shown, element("figcaption", { textContent: caption }));

let numbered = 0;

// A label with its control after it, or around it where that is a check box.
export function field(text, control, properties = {}) {
  const words = element("span", { textContent: text });
  return element("label", { className: "field", ...properties }, ...(control.type === "checkbox" ? [control, words] : [words, control]));
}

// A list that a text field offers: [the datalist, its id].
export function choices(texts) {
  const id = `choices-${++numbered}`;
  return [element("datalist", { id }, ...texts.map((value) => element("option", { value }))), id];
}

export function select(options, chosen, properties = {}) {
  const made = element("select", properties, ...Object.entries(options).map(([value, text]) => element("option", { value, textContent: text })));
  made.value = chosen;
  return made;
}
