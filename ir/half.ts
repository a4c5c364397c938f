/** IEEE 754 half precision: numbers to the bits of float16 and back. */

const SMALLEST_NORMAL = 2 ** -14;
const SUBNORMAL_UNIT = 2 ** -24;

/** The nearest float16, ties to even; what is too large becomes infinite. */
export function halfBits(value: number): number {
  const sign = value < 0 || Object.is(value, -0) ? 0x8000 : 0;
  const size = Math.abs(value);
  if (Number.isNaN(value)) return 0x7e00;
  if (size < SMALLEST_NORMAL) return sign | roundHalfEven(size / SUBNORMAL_UNIT);
  // A significand that rounds up to 2048 carries into the exponent by itself, and out of the largest one into infinity.
  const exponent = Math.min(16, Math.floor(Math.log2(size)));
  const significand = roundHalfEven(size / 2 ** (exponent - 10)) - 1024;
  return sign | Math.min(0x7c00, ((exponent + 15) << 10) + significand);
}

export function halfValue(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0) return sign * fraction * SUBNORMAL_UNIT;
  if (exponent === 31) return fraction === 0 ? sign * Infinity : NaN;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

function roundHalfEven(value: number): number {
  const below = Math.floor(value);
  const rest = value - below;
  return rest > 0.5 || (rest === 0.5 && below % 2 === 1) ? below + 1 : below;
}
