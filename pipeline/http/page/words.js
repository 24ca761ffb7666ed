// Numbers, spans and bytes as people read them.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const tenths = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });

export const count = (value) => whole.format(value);

export const many = (value, noun) => `${count(value)} ${noun}${value === 1 ? "" : "s"}`;

export const rate = (value) => `${value < 10 ? tenths.format(value) : whole.format(value)}/s`;

// A share below 1 is never shown as 100 %.
export const percent = (share) => `${Math.floor(share * 100)} %`;

export function bytes(value) {
  for (const [size, unit] of [[1e12, "TB"], [1e9, "GB"], [1e6, "MB"], [1e3, "kB"]]) {
    if (value >= size) return `${tenths.format(value / size)} ${unit}`;
  }
  return `${whole.format(value)} B`;
}

export function span(seconds) {
  for (const [size, unit] of [[86400, "d"], [3600, "h"], [60, "min"]]) {
    if (seconds >= 2 * size) return `${whole.format(seconds / size)} ${unit}`;
  }
  return `${whole.format(Math.max(0, seconds))} s`;
}

export const clock = (seconds) => new Date(seconds * 1000).toLocaleTimeString("sv");

export const day = (seconds) => new Date(seconds * 1000).toLocaleString("sv");
