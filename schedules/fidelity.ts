/** Measures of the difference between two results. */

/** ‖a − b‖₂ / ‖b‖₂. */
export function relativeL2(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let difference = 0;
  let norm = 0;
  for (let i = 0; i < b.length; i++) {
    difference += ((a[i] ?? NaN) - (b[i] ?? NaN)) ** 2;
    norm += (b[i] ?? NaN) ** 2;
  }
  return Math.sqrt(difference / norm);
}

/** Peak signal-to-noise ratio in dB, with `peak` the width of the range of values; Infinity for equal signals. */
export function psnr(a: ArrayLike<number>, b: ArrayLike<number>, peak: number): number {
  let sum = 0;
  for (let i = 0; i < b.length; i++) sum += ((a[i] ?? NaN) - (b[i] ?? NaN)) ** 2;
  return 10 * Math.log10(peak ** 2 / (sum / b.length));
}

/** The width of the range that a signal takes. */
export function rangeOf(values: ArrayLike<number>): number {
  let low = Infinity;
  let high = -Infinity;
  for (let i = 0; i < values.length; i++) {
    low = Math.min(low, values[i] ?? low);
    high = Math.max(high, values[i] ?? high);
  }
  return high - low;
}
