// Which tab an address shows. An address is #/TAB/PART/...?NAME=VALUE&...; all that a tab shows follows from it.

import { element } from "./components/elements.js";
import { failure, loading } from "./components/states.js";
import { TABS } from "./tabs.js";

// The address of a place; parameters that are empty are left out, and a list gives one several times.
export function address(tab, parts = [], parameters = {}) {
  const path = [tab, ...parts].map(encodeURIComponent).join("/");
  const query = queryOf(parameters);
  return `#/${path}${query.size ? `?${query}` : ""}`;
}

export function queryOf(parameters) {
  if (parameters instanceof URLSearchParams) return parameters;
  const given = Object.entries(parameters).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  return new URLSearchParams(given.flatMap(([name, value]) => [value].flat().map((one) => [name, one])));
}

export function placeOf(hash) {
  const [path, ...rest] = hash.replace(/^#\/?/, "").split("?");
  const [tab, ...parts] = path.split("/").map(decoded);
  return { tab: tab || TABS[0].name, parts: parts.filter(Boolean), query: new URLSearchParams(rest.join("?")) };
}

function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

// A tab gets a root of its own, which is thrown away when it is left: what comes late is written where nobody looks.
export function start(main, bar) {
  let visit = new AbortController();
  let isFirst = true;

  async function show() {
    visit.abort();
    visit = new AbortController();
    const { signal } = visit;
    const place = placeOf(location.hash);
    const tab = TABS.find(({ name }) => name === place.tab);
    const heading = element("h2", { tabIndex: -1 });
    const root = element("div", { className: `tab ${tab?.name ?? ""}` }, loading());
    const title = (text) => {
      heading.textContent = text;
      document.title = `${text} - FC7`;
    };
    mark(bar, tab?.name);
    title(tab?.title ?? "There is no such page");
    main.setAttribute("aria-busy", "true");
    main.replaceChildren(heading, root);
    if (!isFirst) heading.focus();
    isFirst = false;
    const fail = (error, again) => !signal.aborted && root.replaceChildren(failure(error, again));
    try {
      if (!tab) throw new Error(`The address ${location.hash} leads nowhere. The tabs above do.`);
      const module = await load(tab.name, fail);
      if (!module || signal.aborted) return;
      root.replaceChildren();
      await module.show(root, place, { signal, title, go, step, replace });
    } catch (error) {
      fail(error, tab && show);
    } finally {
      if (!signal.aborted) main.setAttribute("aria-busy", "false");
    }
  }

  window.addEventListener("hashchange", show);
  return show();
}

const go = (tab, parts, parameters) => {
  location.hash = address(tab, parts, parameters);
};

// The same in place of where one is: the browser does not go back to that.
const step = (tab, parts, parameters) => location.replace(address(tab, parts, parameters));

// Another address for what is shown already.
const replace = (tab, parts, parameters) => {
  history.replaceState(history.state, "", address(tab, parts, parameters));
};

// A module that could not be fetched is not fetched again before the page is.
async function load(name, fail) {
  try {
    const [module] = await Promise.all([import(`./tabs/${name}.js`), styled(new URL(`./tabs/${name}.css`, import.meta.url).href)]);
    return module;
  } catch (error) {
    fail(new Error(`This part of the page could not be loaded. Is the service still running? (${error.message})`), () => location.reload());
    return null;
  }
}

const styles = new Map();

function styled(href) {
  if (!styles.has(href)) {
    styles.set(href, new Promise((resolve) => {
      const link = element("link", { rel: "stylesheet", href, onload: resolve, onerror: resolve });
      document.head.append(link);
    }));
  }
  return styles.get(href);
}

function mark(bar, name) {
  for (const link of bar.querySelectorAll("a")) {
    link.ariaCurrent = link.dataset.tab === name ? "page" : null;
    if (link.ariaCurrent) bar.scrollLeft = link.offsetLeft - bar.offsetLeft - (bar.clientWidth - link.offsetWidth) / 2;  // in sight on a phone, too
  }
}

// Arrow keys go along the bar, beside Tab.
export function drawBar(bar) {
  bar.replaceChildren(...TABS.map(({ name, title }) => {
    const link = element("a", { href: address(name), textContent: title });
    link.dataset.tab = name;
    return element("li", {}, link);
  }));
  bar.addEventListener("keydown", (event) => {
    const links = [...bar.querySelectorAll("a")];
    const at = links.indexOf(document.activeElement);
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: -1 }[event.key];
    if (at < 0 || to === undefined) return;
    event.preventDefault();
    links.at(to % links.length).focus();
  });
}
