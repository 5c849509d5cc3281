// Which part of the map is seen, and how mouse, touch and keys move it. Pixels are those of CSS.

const CLOSEST = 400;  // times the whole map
const STEP = 60;  // pixels that an arrow key moves
const FACTOR = 1.5;  // of a key or a button
const STILL = 4;  // pixels within which a press is a click

export class View {
  // `extents`: how wide and how high what there is lies, in shares of the map.
  constructor(extents) {
    [this.width, this.height, this.ratio] = [1, 1, 1];
    this.extents = extents;
    this.set(0.5, 0.5, 1);
  }

  set(x, y, zoom) {
    const inside = (value, fallback) => (Number.isFinite(value) ? Math.min(1, Math.max(0, value)) : fallback);
    [this.x, this.y] = [inside(x, 0.5), inside(y, 0.5)];
    this.zoom = Number.isFinite(zoom) ? Math.min(CLOSEST, Math.max(0.8, zoom)) : 1;
  }

  // Pixels for the width of the whole map.
  get scale() {
    const [width, height] = this.extents;
    return 0.94 * this.zoom * Math.min(this.width / width, this.height / height);
  }

  toMap = (px, py) => [this.x + (px - this.width / 2) / this.scale, this.y + (py - this.height / 2) / this.scale];
  toPixels = (x, y) => [(x - this.x) * this.scale + this.width / 2, (y - this.y) * this.scale + this.height / 2];

  move(dx, dy) {
    this.set(this.x - dx / this.scale, this.y - dy / this.scale, this.zoom);
  }

  // What is at this pixel stays there.
  zoomAt(factor, px = this.width / 2, py = this.height / 2) {
    const [x, y] = this.toMap(px, py);
    this.set(this.x, this.y, this.zoom * factor);
    const [nx, ny] = this.toMap(px, py);
    this.set(this.x + x - nx, this.y + y - ny, this.zoom);
  }

  bounds() {
    return [...this.toMap(0, 0), ...this.toMap(this.width, this.height)];
  }
}

// `told` has moved(), hovered(px, py), left(), clicked(px, py), lassoing(path), lassoed(path), and isLasso(event).
export function listen(stage, view, told, signal) {
  const pointers = new Map();
  let [path, travelled] = [null, 0];
  const on = (name, listener, options = {}) => stage.addEventListener(name, listener, { signal, ...options });
  const at = (event) => {
    const box = stage.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };

  on("pointerdown", (event) => {
    if (event.button !== 0 || event.target.closest("button, a")) return;
    stage.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, at(event));
    travelled = pointers.size > 1 ? Infinity : 0;
    path = pointers.size === 1 && told.isLasso(event) ? [at(event)] : null;
  });
  on("pointermove", (event) => {
    const now = at(event);
    const before = pointers.get(event.pointerId);
    if (!before) return told.hovered(...now);
    travelled += Math.hypot(now[0] - before[0], now[1] - before[1]);
    if (path) {
      path.push(now);
      told.lassoing(path);
    } else if (pointers.size === 2) {
      pinch(event.pointerId, now);
    } else if (travelled > STILL) {
      view.move(now[0] - before[0], now[1] - before[1]);
      told.moved();
    } else return;
    pointers.set(event.pointerId, now);
  });
  on("pointerup", (event) => {
    if (!pointers.delete(event.pointerId)) return;
    if (path) told.lassoed(path);
    else if (travelled <= STILL) told.clicked(...at(event));
    path = null;
  });
  on("pointercancel", (event) => {
    pointers.delete(event.pointerId);
    if (path) told.lassoing(path = null);
  });
  on("pointerleave", () => told.left());
  on("wheel", (event) => {
    event.preventDefault();
    const pixels = event.deltaY * (event.deltaMode ? 30 : 1);
    view.zoomAt(Math.exp(-Math.max(-200, Math.min(200, pixels)) / 300), ...at(event));
    told.moved();
  }, { passive: false });
  on("keydown", (event) => {
    if (event.target !== stage || event.ctrlKey || event.metaKey || event.altKey || !press(view, event.key)) return;
    event.preventDefault();
    told.moved();
  });

  function pinch(id, now) {
    const [other] = [...pointers].filter(([one]) => one !== id).map(([, place]) => place);
    const before = pointers.get(id);
    const apart = ([x, y]) => Math.hypot(x - other[0], y - other[1]);
    view.move((now[0] - before[0]) / 2, (now[1] - before[1]) / 2);
    view.zoomAt(apart(now) / Math.max(1, apart(before)), (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
    told.moved();
  }
}

// Whether a key moves the view.
function press(view, key) {
  const steps = { ArrowLeft: [STEP, 0], ArrowRight: [-STEP, 0], ArrowUp: [0, STEP], ArrowDown: [0, -STEP] };
  if (key in steps) view.move(...steps[key]);
  else if (key === "+" || key === "=") view.zoomAt(FACTOR);
  else if (key === "-") view.zoomAt(1 / FACTOR);
  else if (key === "0" || key === "Home") view.set(0.5, 0.5, 1);
  else return false;
  return true;
}
