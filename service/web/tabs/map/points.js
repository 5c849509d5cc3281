// The points of the map: where they lie, who is near a place, who is within an outline. Places are in [0, 1], y downwards.

const MAGIC = 0x50374346;  // "FC7P"
const LARGEST = 65535;
const CELLS = 128;  // of the grid, each way

// What GET /map/points answers, as the service describes it, in the order of bytes that browsers have.
export async function fetchPoints(path, signal) {
  let response;
  try {
    response = await fetch(path, { signal });
  } catch (error) {
    if (signal.aborted) throw error;
    throw new Error("The service does not answer. Is it still running?");
  }
  if (!response.ok) {
    const body = await response.json().catch(() => ({}));
    throw Object.assign(new Error(body.detail || `${response.status} ${response.statusText}`), { status: response.status });
  }
  return pointsOf(await response.arrayBuffer());
}

function pointsOf(buffer) {
  const [magic, count] = new Uint32Array(buffer, 0, 2);
  if (magic !== MAGIC || buffer.byteLength !== 8 + 10 * count) throw new Error("The service answers with another kind of map. Reload the page.");
  const steps = new Uint32Array(buffer, 8, count);
  const [xs, ys, numbers] = [0, 1, 2].map((part) => new Uint16Array(buffer, 8 + 4 * count + 2 * count * part, count));
  const ids = new Float64Array(count);
  const places = new Float32Array(2 * count);
  let id = 0;
  for (let i = 0; i < count; i++) {
    ids[i] = id += steps[i];
    places[2 * i] = xs[i] / LARGEST;
    places[2 * i + 1] = 1 - ys[i] / LARGEST;
  }
  const extents = [xs, ys].map((some) => some.reduce(larger, 0) - some.reduce(smaller, LARGEST));
  return { count, ids, places, numbers, grid: gridOf(places, count), extents: extents.map((extent) => (extent > 0 ? extent / LARGEST : 1)) };
}

const larger = (one, other) => Math.max(one, other);
const smaller = (one, other) => Math.min(one, other);

const cellOf = (place) => Math.min(CELLS - 1, Math.max(0, Math.floor(place * CELLS)));

// The points of each cell, one cell after the other, row by row.
function gridOf(places, count) {
  const starts = new Uint32Array(CELLS * CELLS + 1);
  const cells = new Uint16Array(count);
  for (let i = 0; i < count; i++) {
    cells[i] = cellOf(places[2 * i + 1]) * CELLS + cellOf(places[2 * i]);
    starts[cells[i] + 1]++;
  }
  for (let cell = 0; cell < CELLS * CELLS; cell++) starts[cell + 1] += starts[cell];
  const next = starts.slice();
  const members = new Uint32Array(count);
  for (let i = 0; i < count; i++) members[next[cells[i]]++] = i;
  return { starts, members };
}

// The points within a rectangle, for which `wanted` holds, in no order.
export function within({ places, grid }, left, top, right, bottom, wanted) {
  const found = [];
  for (let row = cellOf(top); row <= cellOf(bottom); row++) {
    const from = grid.starts[row * CELLS + cellOf(left)];
    const to = grid.starts[row * CELLS + cellOf(right) + 1];
    for (let at = from; at < to; at++) {
      const i = grid.members[at];
      const [x, y] = [places[2 * i], places[2 * i + 1]];
      if (x >= left && x <= right && y >= top && y <= bottom && wanted(i)) found.push(i);
    }
  }
  return found;
}

// The point nearest to a place, no farther than `radius`; -1 where there is none.
export function nearest(points, x, y, radius, wanted) {
  let best = -1;
  let least = radius * radius;
  for (const i of within(points, x - radius, y - radius, x + radius, y + radius, wanted)) {
    const square = (points.places[2 * i] - x) ** 2 + (points.places[2 * i + 1] - y) ** 2;
    if (square <= least) [best, least] = [i, square];
  }
  return best;
}

// The points within an outline, a list of [x, y], by the even-odd rule.
export function outlined(points, outline, wanted) {
  const [xs, ys] = [0, 1].map((axis) => outline.map((corner) => corner[axis]));
  return within(points, Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys), (i) =>
    wanted(i) && isInside(outline, points.places[2 * i], points.places[2 * i + 1]));
}

function isInside(outline, x, y) {
  let inside = false;
  for (let i = 0, j = outline.length - 1; i < outline.length; j = i++) {
    const [[ax, ay], [bx, by]] = [outline[i], outline[j]];
    if (ay > y !== by > y && x < ((bx - ax) * (y - ay)) / (by - ay) + ax) inside = !inside;
  }
  return inside;
}

// Where the middle of each label's points is: the medians of x and y, or nothing where a label has no points.
export function middles({ count, places, numbers }, labels) {
  const members = Array.from({ length: labels }, () => []);
  for (let i = 0; i < count; i++) members[numbers[i]]?.push(i);
  return members.map((some) => some.length > 0 && [0, 1].map((axis) => {
    const sorted = Float32Array.from(some, (i) => places[2 * i + axis]).sort();
    return sorted[sorted.length >> 1];
  }));
}
