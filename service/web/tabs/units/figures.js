// The figures of kernels, in the words of the page.

export const FIGURES = {  // names as the service has them: what people read, and its unit
  chroma: ["chroma: energy that is colour", "%"],
  low_share: ["energy below 0.25 cycles a pixel", "%"],
  dc_share: ["energy at frequency 0", "%"],
  participation: ["spectral participation", "%"],
  selectivity: ["orientation selectivity", ""],
  orientation: ["orientation, degrees from horizontal", ""],
  frequency: ["frequency, cycles a pixel", ""],
  bandwidth: ["bandwidth, octaves", ""],
  explained: ["energy that a Gabor function explains", "%"],
  norm: ["norm", ""],
};

export const nameOf = ({ column, unit }) => `Kernel ${unit} of column ${column}`;

export function shown(value, unit) {
  if (value === null || value === undefined) return "\u2013";
  if (unit === "%") return `${(100 * value).toFixed(1)} %`;
  return `${Number(value.toPrecision(3))}${unit}`;
}

export function range(noise, name) {
  const spread = noise.ranges[name];
  if (!spread) return "\u2013";
  const [, unit] = FIGURES[name];
  return `${shown(spread.mean, unit)} (${shown(spread.low, unit)} to ${shown(spread.high, unit)})`;
}
