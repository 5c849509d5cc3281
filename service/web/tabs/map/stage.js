// Where the map is seen: the points, the names of labels and thumbnails over them, what is below the pointer.

import { element } from "../../components/elements.js";
import { thumbnail } from "../../components/photograph.js";
import { COLOURS } from "./labels.js";
import { drawingOf, onPlainCanvas } from "./drawing.js";
import { nearest, within } from "./points.js";
import { View, listen } from "./view.js";

const SMOOTH_MS = 33;  // between two frames of a movement, at most
const LEAST_SHARE = 0.05;  // of the points, that is drawn for that
const REST_MS = 150;  // without a movement, after which thumbnails are fetched and the address is changed
const REACH = 14;  // pixels
const SIDE = 56;  // of a thumbnail, pixels
const MOST_THUMBNAILS = 60;
const NEAR = 400;  // points in view, from which down thumbnails are shown
const NAMES = 40;
const HELP = "Map. Drag or use the arrow keys to move, the wheel, two fingers or plus and minus to zoom, 0 for the whole map, Enter for the photograph nearest to the middle. Shift and drag draws a lasso.";

export class Stage {
  // `told` has settled(), chose(point), lassoed(outline).
  constructor(points, labels, told, signal) {
    Object.assign(this, { points, labels, told, signal, view: new View(points.extents), lasso: false, ringed: -1, outline: null, share: 1, isMoving: false });
    this.drawing = drawingOf(points, () => this.#replaceDrawing());
    this.over = element("canvas", { className: "over", "aria-hidden": "true" });
    this.pictures = element("div", { className: "pictures", "aria-hidden": "true" });
    this.tip = element("div", { className: "tip", hidden: true });
    this.element = element("div", { className: "stage", tabIndex: 0, role: "application", "aria-label": HELP },
      this.drawing.canvas, this.pictures, this.over, this.tip);
    this.shown = new Map();  // thumbnails by their points
  }

  get kind() {
    return this.drawing.kind;
  }

  start() {
    this.#readColours();
    this.repaint();
    const resized = new ResizeObserver(() => this.#resize());
    resized.observe(this.element);
    this.signal.addEventListener("abort", () => resized.disconnect());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { this.#readColours(); this.repaint(); }, { signal: this.signal });
    this.element.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && event.target === this.element) this.told.chose(this.#nearest(this.view.width / 2, this.view.height / 2, Infinity));
    }, { signal: this.signal });
    listen(this.element, this.view, {
      moved: () => this.moved(),
      hovered: (px, py) => this.#hover(px, py),
      left: () => { this.tip.hidden = true; },
      clicked: (px, py) => this.told.chose(this.#nearest(px, py, REACH)),
      isLasso: (event) => this.lasso || event.shiftKey,
      lassoing: (path) => { this.outline = path; this.#ask(); },
      lassoed: (path) => {
        this.outline = path;
        this.#ask();
        this.told.lassoed(path.map(([px, py]) => this.view.toMap(px, py)));
      },
    }, this.signal);
    this.#resize();
  }

  repaint() {
    this.drawing.paint(this.labels.tones(), this.colours);
    this.moved();
  }

  moved() {
    this.outline = null;
    this.tip.hidden = true;
    this.isMoving = true;
    this.#ask();
    clearTimeout(this.rest);
    this.element.setAttribute("aria-busy", "true");
    this.rest = setTimeout(() => this.#settle(), REST_MS);
  }

  zoom(factor) {
    this.view.zoomAt(factor);
    this.moved();
  }

  whole() {
    this.view.set(0.5, 0.5, 1);
    this.moved();
  }

  ring(point) {
    this.ringed = point;
    this.#ask();
  }

  #ask() {
    this.frame ??= requestAnimationFrame((now) => {
      this.frame = null;
      if (this.isMoving) this.#pace(now - this.before);
      this.before = now;
      this.#draw();
    });
  }

  // Fewer points where the frame before took too long, more where there was time.
  #pace(took) {
    if (took > 0) this.share = Math.min(1, Math.max(LEAST_SHARE, this.share * (took > SMOOTH_MS ? 0.7 : 1.1)));
  }

  #settle() {
    if (this.signal.aborted) return;
    this.isMoving = false;
    this.before = NaN;
    this.#choosePictures();
    this.#draw();
    this.element.setAttribute("aria-busy", "false");
    this.told.settled();
  }

  #resize() {
    const { clientWidth, clientHeight } = this.element;
    Object.assign(this.view, { width: clientWidth, height: clientHeight, ratio: Math.min(2, devicePixelRatio) });
    for (const canvas of [this.drawing.canvas, this.over]) {
      canvas.width = clientWidth * this.view.ratio;
      canvas.height = clientHeight * this.view.ratio;
    }
    this.moved();
  }

  #replaceDrawing() {
    const before = this.drawing.canvas;
    this.drawing = onPlainCanvas(this.points);
    before.replaceWith(this.drawing.canvas);
    this.repaint();
    this.#resize();
  }

  // Colours as the style sheet has them for light or dark, each as [red, green, blue, alpha] from 0 to 1.
  #readColours() {
    const probe = element("span");
    this.element.append(probe);
    const read = (name) => {
      probe.style.color = `var(${name})`;
      return getComputedStyle(probe).color;
    };
    this.colours = Array.from({ length: COLOURS + 1 }, (_, i) => {
      const [red, green, blue] = read(`--map-${i}`).match(/[\d.]+/g).map(Number);
      return [red / 255, green / 255, blue / 255, i ? 0.9 : 0.6];
    });
    this.inks = { ink: read("--ink"), quiet: read("--quiet"), halo: read("--card"), accent: read("--accent") };
    probe.remove();
  }

  get #diameter() {
    const usual = Math.min(8, Math.max(2.2, 360 / Math.sqrt(this.points.count)));
    const room = Math.min(1, Math.min(this.view.width, this.view.height) / 700);
    return Math.min(14, usual * Math.sqrt(room) * this.view.zoom ** 0.35);
  }

  #draw() {
    this.drawing.draw(this.view, this.#diameter, this.isMoving ? this.share : 1);
    for (const [i, image] of this.shown) this.#put(image, i);
    const context = this.over.getContext("2d");
    context.setTransform(this.view.ratio, 0, 0, this.view.ratio, 0, 0);
    context.clearRect(0, 0, this.view.width, this.view.height);
    if (this.shown.size === 0) this.#drawNames(context);
    context.strokeStyle = this.inks.accent;
    context.lineWidth = 2.5;
    if (this.outline) {
      context.beginPath();
      for (const corner of this.outline) context.lineTo(...corner);
      context.closePath();
      context.stroke();
    }
    if (this.ringed >= 0) {
      context.beginPath();
      context.arc(...this.#pixelsOf(this.ringed), this.shown.has(this.ringed) ? SIDE * 0.72 : this.#diameter / 2 + 4, 0, 7);
      context.stroke();
    }
  }

  // Names at the middles of their labels, the coloured ones first; none over another.
  #drawNames(context) {
    const taken = [];
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.lineJoin = "round";
    context.lineWidth = 4;
    const others = this.labels.only ? [] : this.labels.all.filter((entry) => !this.labels.toneOf(entry.number));
    for (const { label, number } of [...this.labels.chosen, ...others]) {
      const middle = this.labels.middles[number];
      if (!label || !middle || taken.length >= NAMES) continue;
      const [x, py] = this.view.toPixels(...middle);
      const isChosen = this.labels.toneOf(number) > 0;
      context.font = isChosen ? "600 13px system-ui, sans-serif" : "12px system-ui, sans-serif";
      const half = context.measureText(label).width / 2 + 3;
      if (x < 0 || x > this.view.width || py < 8 || py > this.view.height - 8) continue;
      const px = Math.min(this.view.width - half, Math.max(half, x));
      const box = [px - half, py - 8, px + half, py + 8];
      if (taken.some(([left, top, right, bottom]) => box[0] < right && box[2] > left && box[1] < bottom && box[3] > top)) continue;
      taken.push(box);
      context.strokeStyle = this.inks.halo;
      context.strokeText(label, px, py);
      context.fillStyle = isChosen ? this.inks.ink : this.inks.quiet;
      context.fillText(label, px, py);
    }
  }

  // Thumbnails of points in view that are far enough apart, where few enough are in view.
  #choosePictures() {
    const inView = within(this.points, ...this.view.bounds(), this.labels.isShown);
    const chosen = new Set();
    if (inView.length <= NEAR) {
      const taken = [];
      const firsts = [this.ringed, ...this.shown.keys()].filter((i) => inView.includes(i));
      for (const i of new Set([...firsts, ...inView.sort((one, other) => scattered(one) - scattered(other))])) {
        const [px, py] = this.#pixelsOf(i);
        if (chosen.size >= MOST_THUMBNAILS) break;
        if (taken.some(([x, y]) => Math.abs(x - px) < SIDE + 4 && Math.abs(y - py) < SIDE + 4)) continue;
        taken.push([px, py]);
        chosen.add(i);
      }
    }
    for (const [i, image] of this.shown) {
      if (!chosen.has(i)) {
        image.remove();
        this.shown.delete(i);
      }
    }
    for (const i of chosen) {
      const tone = this.labels.toneOf(this.points.numbers[i]);
      const image = this.shown.get(i) ?? element("img", { src: thumbnail(this.points.ids[i]), alt: "", width: SIDE, height: SIDE });
      image.style.borderColor = `var(--map-${tone})`;
      if (!this.shown.has(i)) this.pictures.append(image);
      this.shown.set(i, image);
      this.#put(image, i);
    }
  }

  #put(image, i) {
    const [px, py] = this.#pixelsOf(i);
    image.style.transform = `translate(${px - SIDE / 2}px, ${py - SIDE / 2}px)`;
  }

  #pixelsOf(i) {
    return this.view.toPixels(this.points.places[2 * i], this.points.places[2 * i + 1]);
  }

  #nearest(px, py, reach) {
    const [x, y] = this.view.toMap(px, py);
    for (const [i, image] of this.shown) if (reach < Infinity && isOver(image, this.#pixelsOf(i), px, py)) return i;
    return nearest(this.points, x, y, Math.min(2, reach / this.view.scale), this.labels.isShown);
  }

  #hover(px, py) {
    const i = this.#nearest(px, py, REACH);
    this.element.style.cursor = i >= 0 ? "pointer" : "";
    this.tip.hidden = i < 0;
    if (i < 0 || this.tip.dataset.point === `${i}`) return;
    this.tip.dataset.point = i;
    this.tip.replaceChildren(
      element("img", { src: thumbnail(this.points.ids[i]), alt: "", width: 96, height: 96 }),
      element("span", { textContent: this.labels.nameOf(i) || `photograph ${this.points.ids[i]}` }));
    const [x, y] = this.#pixelsOf(i);
    this.tip.style.left = `${Math.min(this.view.width - 116, Math.max(4, x + 16))}px`;
    this.tip.style.top = `${y > this.view.height / 2 ? y - 146 : y + 16}px`;
  }
}

// An order of points that begins everywhere on the map.
const scattered = (i) => Math.imul(i, 2654435761) >>> 0;

const isOver = (image, [x, y], px, py) => Math.abs(px - x) <= SIDE / 2 && Math.abs(py - y) <= SIDE / 2;
