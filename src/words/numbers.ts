/** Formats numbers for people: three significant digits and SI prefixes, the same in every locale. */

const PREFIXES = ["", "k", "M", "G", "T", "P", "E"];

/** "1.26 GMAC", "17.8 MB" (decimal prefixes), "512 B". */
export function formatQuantity(value: number, unit: string): string {
  if (Number.isInteger(value) && Math.abs(value) < 1000) return `${formatCount(value)}\u00a0${unit}`;
  let power = 0;
  // 999.5 would be printed as 1000 with three digits.
  while (Math.abs(value) >= 999.5 * 1000 ** power && power < PREFIXES.length - 1) power++;
  return `${significant(value / 1000 ** power)}\u00a0${PREFIXES[power] ?? ""}${unit}`;
}

/** "0.840 ms", "345 ms", "1.92 s", "3 min 20 s". */
export function formatDuration(ms: number): string {
  if (ms < 999.5) return `${significant(ms)}\u00a0ms`;
  const seconds = Math.round(ms / 1000);
  if (seconds < 120) return `${significant(ms / 1000)}\u00a0s`;
  return `${Math.floor(seconds / 60)}\u00a0min ${seconds % 60}\u00a0s`;
}

/** "0.0312", "3.10 × 10⁻⁷", "12.3", "1,234"; whole numbers stay whole. */
export function formatNumber(value: number): string {
  if (!Number.isFinite(value)) return Number.isNaN(value) ? "not a number" : value > 0 ? "∞" : "−∞";
  const size = Math.abs(value);
  if (size >= 999.5 || Number.isInteger(value)) return formatCount(Math.round(value));
  if (size >= 0.001) return significant(value);
  const [digits = "", exponent = ""] = value.toExponential(2).split("e");
  return `${minus(digits)}\u00a0×\u00a010${exponent.replace("+", "").replace(/./g, superscript)}`;
}

/** A whole number with separators: "19,350". */
export function formatCount(value: number): string {
  return minus(String(value)).replace(/\B(?=(\d{3})+$)/g, ",");
}

/** "1.90×". */
export function formatRatio(value: number): string {
  return `${significant(value)}×`;
}

/** "51 %", "3.1 %", "0.04 %", "under 0.01 %": two significant digits of a fraction. */
export function formatPercent(fraction: number): string {
  const percent = 100 * fraction;
  if (percent !== 0 && Math.abs(percent) < 0.01) return "under\u00a00.01\u00a0%";
  const digits = percent === 0 || Math.abs(percent) >= 9.95 ? 0 : Math.abs(percent) >= 0.995 ? 1 : 2;
  return `${minus(percent.toFixed(digits))}\u00a0%`;
}

/** Below 1000; toPrecision() has no exponents here. */
function significant(value: number): string {
  return minus(value === 0 ? "0" : value.toPrecision(3));
}

function superscript(letter: string): string {
  return letter === "-" ? "⁻" : ("⁰¹²³⁴⁵⁶⁷⁸⁹"[Number(letter)] ?? "");
}

function minus(text: string): string {
  return text.replace("-", "−");
}
