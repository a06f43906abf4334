// Number formats for people.

const SPACE = "\u202f"; // narrow no-break space

export function percent(share) {
  if (share > 0 && share < 0.001) return "< 0.1 %";
  return `${(100 * share).toFixed(1)} %`;
}

export function milliseconds(ms) {
  return ms < 9.95 ? `${ms.toFixed(1)} ms` : `${Math.round(ms).toLocaleString("en")} ms`;
}

export function bytes(count) {
  if (count < 999_500) return `${Math.max(1, Math.round(count / 1e3))} kB`;
  return count < 999_500_000 ? `${short(count / 1e6)} MB` : `${short(count / 1e9)} GB`;
}

const short = (value) => (value < 9.95 ? value.toFixed(1).replace(/\.0$/, "") : value.toFixed(0));

// A figure of a few digits, whatever its size: 0.04, 3, 3.1, 24, 1,250.
export function figure(value) {
  if (value === 0) return "0";
  if (value < 0.095) return value < 0.01 ? `<${SPACE}0.01` : value.toFixed(2);
  if (value < 9.95 && !Number.isInteger(value)) return value.toFixed(1);
  return Math.round(value).toLocaleString("en");
}

export function counted(number, one, several = `${one}s`) {
  return `${number.toLocaleString("en")} ${number === 1 ? one : several}`;
}
