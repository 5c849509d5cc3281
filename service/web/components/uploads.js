// Photographs of one's own, held by this window until it is closed, so that an address can name one: u1, u2, ...

const held = new Map();

// The reference under which a file is held from now on.
export function hold(file) {
  const reference = `u${held.size + 1}`;
  held.set(reference, { file, reference, path: file.name || "pasted photograph", address: URL.createObjectURL(file) });
  return reference;
}

// What a reference names: { id } of an indexed photograph, or { file, path, address } of one's own.
export function photographOf(reference) {
  if (/^\d+$/.test(reference)) return { reference, id: Number(reference) };
  const upload = held.get(reference);
  if (!upload) throw new Error("This photograph was held by another window, or before the page was loaded again. Choose it once more.");
  return upload;
}
