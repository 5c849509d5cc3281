// The service's HTTP interface; a problem+json answer becomes an Error with its text.

async function call(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("The service does not answer. Is it still running?");
  }
  const body = await response.json().catch(() => ({}));
  if (!response.ok) throw Object.assign(new Error(body.detail || `${response.status} ${response.statusText}`), { status: response.status });
  return body;
}

// What takes the service longer than one request may take goes on there, and is ready for the next.
async function twice(path) {
  try {
    return await call(path);
  } catch (error) {
    if (error.status !== 503) throw error;
    return call(path);
  }
}

function post(path, fields) {
  const form = new FormData();
  for (const [name, value] of fields) form.append(name, value);
  return call(path, { method: "POST", body: form });
}

const upload = (path, file) => post(path, [["image", file]]);

// Options left empty are the service's own; a list gives one several times.
function query(options) {
  const given = Object.entries(options).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  return new URLSearchParams(given.flatMap(([name, value]) => [value].flat().map((one) => [name, one])));
}

// One page of neighbours: { neighbors, next, metric }.
async function neighbors(ask, options) {
  const answer = await ask(`neighbors?${query(options)}`);
  return { ...answer.results[0], metric: answer.metric };
}

export const info = () => call("info");
export const filters = () => twice("filters");
export const unitPath = (column, unit, part) => `units/conv1/${column}/${unit}${part}`;
export const unitPhotographs = (column, unit) => twice(unitPath(column, unit, "/photographs"));
export const unit = (column, unit) => twice(unitPath(column, unit, ""));
export const item = (id) => call(`items/${id}`);
export const classify = async (file, views) => (await upload(`classify?top=5&views=${views}`, file)).results[0].classes;
export const neighborsOfFile = (file, options) => neighbors((path) => upload(path, file), options);
// Each example is an item, or a photograph of one's own: { id } or { file }.
export const neighborsOfExamples = (like, unlike, options) => neighbors((path) => post(path, [
  ...like.map(({ id, file }) => (file ? ["like", file] : ["like_id", id])),
  ...unlike.map(({ id, file }) => (file ? ["unlike", file] : ["unlike_id", id])),
]), options);
export const neighborsOfItem = (id, options) => neighbors((path) => call(path, { method: "POST" }), { ...options, id });
export const duplicates = (options) => call(`duplicates?${query(options)}`);
