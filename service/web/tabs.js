// The tabs in their order. `name` is the address, the module tabs/NAME.js and its style tabs/NAME.css.

export const TABS = [
  { name: "search", title: "Search" },
  { name: "compare", title: "Compare" },
  { name: "layers", title: "Layers" },
  { name: "units", title: "Units" },
  { name: "map", title: "Map" },
  { name: "invariance", title: "Invariance" },
  { name: "claims", title: "Claims" },
  { name: "collection", title: "Collection" },
  { name: "status", title: "Status" },
];
