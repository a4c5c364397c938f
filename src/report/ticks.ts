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

/** The same from the last of them below `min` to the first above `max`. */
export function ticksBetween(min: number, max: number, count: number): readonly number[] {
  const [, step] = ticks(max - min, count);
  if (step === undefined) return [min];
  const first = Math.floor(min / step + 1e-9);
  const intervals = Math.ceil(max / step - 1e-9) - first;
  return Array.from({ length: intervals + 1 }, (_, i) => Number(((first + i) * step).toPrecision(12)));
}
