/** The float types of 16 bits, float16 (IEEE 754 binary16) and bfloat16 (the upper half of a float): numbers to bits and back. */

/** A sign, an exponent and a fraction, laid out as in IEEE 754. */
interface FloatLayout {
  readonly fractionBits: number;
  /** The stored exponent of 1. */
  readonly bias: number;
  /** The bits of infinity. */
  readonly infinity: number;
  /** By stored exponent: the factor that turns the significand of a number into an integer. */
  readonly units: Float64Array;
}

const HALF = layoutOf(5, 10);
const BFLOAT = layoutOf(8, 7);

/** The nearest float16, ties to even; what is too large becomes infinite. */
export function halfBits(value: number): number {
  return bitsOf(value, HALF);
}

export function halfValue(bits: number): number {
  return valueOf(bits, HALF);
}

/** The nearest bfloat16, ties to even; what is too large becomes infinite. */
export function bfloatBits(value: number): number {
  return bitsOf(value, BFLOAT);
}

export function bfloatValue(bits: number): number {
  return valueOf(bits, BFLOAT);
}

function layoutOf(exponentBits: number, fractionBits: number): FloatLayout {
  const bias = 2 ** (exponentBits - 1) - 1;
  const units = Float64Array.from({ length: 2 * bias + 2 }, (_, exponent) => 2 ** (bias + fractionBits - exponent));
  return { fractionBits, bias, infinity: (2 * bias + 1) << fractionBits, units };
}

const number = new Float64Array(1);
const words = new Uint32Array(number.buffer);
const DOUBLE_BIAS = 1023;
/** Doubles from 2⁵² up are integers, so adding this number and subtracting it again rounds, ties to even. */
const WHOLE = 2 ** 52;

function bitsOf(value: number, { fractionBits, bias, infinity, units }: FloatLayout): number {
  if (Number.isNaN(value)) return infinity | (1 << (fractionBits - 1));
  number[0] = value;
  const upper = words[1] ?? 0;
  // Numbers below the smallest normal one share its exponent.
  const exponent = Math.min(2 * bias + 1, Math.max(1, ((upper >>> 20) & 0x7ff) - DOUBLE_BIAS + bias));
  const significand = Math.abs(value) * (units[exponent] ?? NaN) + WHOLE - WHOLE;
  // The leading bit of the significand and a carry out of it add to the exponent; past the largest exponent that gives infinity.
  return ((upper >>> 16) & 0x8000) | Math.min(infinity, ((exponent - 1) << fractionBits) + significand);
}

function valueOf(bits: number, { fractionBits, infinity, units }: FloatLayout): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const size = bits & 0x7fff;
  if (size >= infinity) return size === infinity ? sign * Infinity : NaN;
  const exponent = Math.max(1, size >>> fractionBits);
  const significand = size - ((exponent - 1) << fractionBits);
  return (sign * significand) / (units[exponent] ?? NaN);
}
