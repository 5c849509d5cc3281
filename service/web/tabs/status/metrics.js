// Prometheus' text format: samples of a name, labels and a value.

const SAMPLE = /^(\w+)(?:\{(.*)\})? (\S+)$/;
const LABEL = /(\w+)="((?:[^"\\]|\\.)*)"/g;

export const read = (text) => text.split("\n").map((line) => line.match(SAMPLE)).filter(Boolean).map(([, name, labels = "", value]) =>
  ({ name, value: Number(value), labels: Object.fromEntries([...labels.matchAll(LABEL)].map(([, key, of]) => [key, of])) }));

// The sum of the samples of a name that `of` takes.
export const total = (samples, name, of = () => true) =>
  samples.filter((sample) => sample.name === name && of(sample.labels)).reduce((sum, { value }) => sum + value, 0);
