// The service's HTTP interface; a problem+json answer becomes an Error with its text and its status.

import { queryOf } from "./router.js";

const KEY = "fc7-key";  // of this browser tab alone, until it is closed

export const key = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (value) => (value ? sessionStorage.setItem(KEY, value) : sessionStorage.removeItem(KEY)),
};

export async function call(path, options = {}) {
  const response = await answered(path, options);
  return response.status === 204 ? null : whole(response.json(), options);
}

// An answer that is a picture.
export const blob = async (path, options = {}) => whole((await answered(path, options)).blob(), options);

async function answered(path, options) {
  const response = await whole(fetch(path, options), options);
  if (response.ok) return response;
  const problem = await response.json().catch(() => ({}));
  throw Object.assign(new Error(problem.detail || `${response.status} ${response.statusText}`), { status: response.status });
}

// What is left in the middle, or is cut off, is no answer: neither is taken for one without contents.
async function whole(reading, { signal }) {
  try {
    return await reading;
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Error("The service does not answer. Is it still running?");
  }
}

// GET with parameters; those that are empty are left out, and a list gives one several times.
export const get = (path, parameters = {}, signal = undefined) => call(addressed(path, parameters), { signal });

// POST of a form; `fields` is a list of [name, text or file].
export function post(path, parameters, fields, signal) {
  const form = new FormData();
  for (const [name, value] of fields) form.append(name, value);
  return call(addressed(path, parameters), { method: "POST", body: form, signal });
}

// A change, with the key that was typed here.
export const change = (path, options) => call(path, { ...options, headers: { "X-API-Key": encoded(key.get()) } });

// Header values are bytes: of a key that is not ASCII those of UTF-8.
const encoded = (text) => String.fromCharCode(...new TextEncoder().encode(text));

// What takes the service longer than one request may take goes on there, and is ready for the next.
export async function twice(path, parameters, signal) {
  try {
    return await get(path, parameters, signal);
  } catch (error) {
    if (error.status !== 503) throw error;
    return get(path, parameters, signal);
  }
}

function addressed(path, parameters) {
  const query = queryOf(parameters);
  return query.size ? `${path}?${query}` : path;
}

export const info = (signal) => get("info", {}, signal);
export const item = (id, signal) => get(`items/${id}`, {}, signal);
// Why no question can be answered, as an error; nothing where all is well.
export const ready = (signal) => get("readyz", {}, signal);
export const duplicates = (options, signal) => get("duplicates", options, signal);

// The classes of each file, most probable first: { name, classes } or { name, error }.
export const classify = async (files, views, signal) =>
  (await post("classify", { top: 5, views }, files.map((file) => ["image", file]), signal)).results;

// The neighbours of one item, of one or several files each by itself, or of examples together: the whole answer.
export const neighborsOfItem = (id, options, signal) => call(addressed("neighbors", { ...options, id }), { method: "POST", signal });
export const neighborsOfFiles = (files, options, signal) => post("neighbors", options, files.map((file) => ["image", file]), signal);
export const neighborsOfExamples = (like, unlike, options, signal) => post("neighbors", options, [
  ...like.map(({ id, file }) => (file ? ["like", file] : ["like_id", id])),
  ...unlike.map(({ id, file }) => (file ? ["unlike", file] : ["unlike_id", id])),
], signal);
