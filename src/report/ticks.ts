/** Round numbers for an axis. */

/** 0, s, 2s, … up to the first that reaches `max`, with s of the form 1, 2 or 5 · 10ⁿ so that there are about `count` intervals. */
export function ticks(max: number, count: number): readonly number[] {
  if (!(max > 0)) return [0];
  const rough = max / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5].find((factor) => factor * power >= rough * 0.999) ?? 10);
  const digits = Math.max(0, Math.ceil(-Math.log10(step)));
  return Array.from({ length: Math.ceil(max / step - 1e-9) + 1 }, (_, i) => Number((i * step).toFixed(digits)));
}

/** Such ticks from the last one below `min` to the first one above `max`. */
export function ticksBetween(min: number, max: number, count: number): readonly number[] {
  const [, step] = ticks(max - min, count);
  if (step === undefined) return [min];
  const first = Math.floor(min / step + 1e-9);
  const intervals = Math.ceil(max / step - 1e-9) - first;
  return Array.from({ length: intervals + 1 }, (_, i) => Number(((first + i) * step).toPrecision(12)));
}

/**
 * For a logarithmic axis: numbers of the form 1, 2 or 5 · 10ⁿ from the last below `min` to the first above `max`, both above 0; beyond
 * two decades powers of ten alone.
 */
export function logarithmicTicks(min: number, max: number): readonly number[] {
  if (!(min > 0 && max < Infinity)) return [1];
  const digits = max / min > 100 ? [1] : [1, 2, 5];
  const [low, high] = [Math.floor(Math.log10(min)), Math.ceil(Math.log10(max))];
  const all = Array.from({ length: high - low + 1 }, (_, i) => digits.map((digit) => Number(`${digit}e${low + i}`))).flat();
  const first = all.findLastIndex((tick) => tick <= min);
  const last = all.findIndex((tick) => tick >= max);
  return all.slice(first, last + 1);
}
