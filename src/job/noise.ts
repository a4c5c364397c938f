/** Unit normal noise as torch's CPU generator draws it, so that a seed gives the same picture as in torch. */

/**
 * torch.Generator("cpu") after manual_seed: the Mersenne twister MT19937 (Matsumoto & Nishimura 1998) and torch's two methods for
 * normals. Consecutive draws correspond to consecutive calls of torch.randn.
 */
export class TorchGenerator {
  private readonly state = new Uint32Array(STATE_WORDS);
  private used = STATE_WORDS;
  /** The second (sine) number of the last pair that was drawn singly. Draws of 16 or more neither use nor clear it. */
  private kept: number | undefined;

  /** `seed`: a non-negative integer, of which the lower 32 bits are used. */
  constructor(seed: number) {
    if (!Number.isSafeInteger(seed) || seed < 0) throw new RangeError(`internal: ${seed} is not a seed`);
    this.state[0] = seed % 2 ** 32;
    for (let i = 1; i < STATE_WORDS; i++) {
      const before = word(this.state, i - 1);
      this.state[i] = Math.imul(1812433253, before ^ (before >>> 30)) + i;
    }
  }

  /** torch.randn of `count` elements in float32; bit-equal to torch on a CPU with AVX2. */
  randn(count: number): Float32Array {
    const values = new Float32Array(count);
    if (count < BLOCK) return values.map(() => this.normal());
    for (let i = 0; i < count; i++) values[i] = this.uniform24();
    for (let i = 0; i + BLOCK <= count; i += BLOCK) toNormals(values.subarray(i, i + BLOCK));
    if (count % BLOCK !== 0) {
      // As in torch: if the last block is not full, the last 16 values are drawn again.
      const last = values.subarray(count - BLOCK);
      for (let i = 0; i < BLOCK; i++) last[i] = this.uniform24();
      toNormals(last);
    }
    return values;
  }

  /** One normal by Box and Muller in float64. */
  private normal(): number {
    if (this.kept !== undefined) {
      const value = this.kept;
      this.kept = undefined;
      return value;
    }
    const angle = 2 * Math.PI * this.uniform53();
    const radius = Math.sqrt(-2 * Math.log1p(-this.uniform53()));
    this.kept = radius * Math.sin(angle);
    return radius * Math.cos(angle);
  }

  private uniform24(): number {
    return (this.next() & 0xffffff) / 2 ** 24;
  }

  /** The low 53 bits of two words, the first one high. */
  private uniform53(): number {
    const high = this.next() & 0x1fffff;
    return (high * 2 ** 32 + this.next()) / 2 ** 53;
  }

  private next(): number {
    if (this.used === STATE_WORDS) this.twist();
    let y = word(this.state, this.used++);
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    return (y ^ (y >>> 18)) >>> 0;
  }

  private twist(): void {
    const { state } = this;
    for (let i = 0; i < STATE_WORDS; i++) {
      const y = (word(state, i) & 0x80000000) | (word(state, (i + 1) % STATE_WORDS) & 0x7fffffff);
      state[i] = word(state, (i + 397) % STATE_WORDS) ^ (y >>> 1) ^ (y & 1 ? 0x9908b0df : 0);
    }
    this.used = 0;
  }
}

/** torch.randn(count) after torch.manual_seed(seed), in float32. */
export function torchRandn(seed: number, count: number): Float32Array {
  return new TorchGenerator(seed).randn(count);
}

const STATE_WORDS = 624;
const BLOCK = 16;

function word(state: Uint32Array, i: number): number {
  return state[i] ?? 0;
}

const f32 = Math.fround;
const TWO_PI = f32(2 * Math.PI);

/** Box and Muller on 16 uniforms in place: value j pairs with value j + 8; the cosines come first, the sines last. */
function toNormals(block: Float32Array): void {
  for (let j = 0; j < BLOCK / 2; j++) {
    const radius = f32(Math.sqrt(f32(-2 * logarithm(f32(1 - (block[j] ?? 0))))));
    const [sin, cos] = sineAndCosine(f32(TWO_PI * (block[j + BLOCK / 2] ?? 0)));
    block[j] = radius * cos;
    block[j + BLOCK / 2] = radius * sin;
  }
}

// The polynomials of Cephes (logf, sinf, cosf) as torch's vectorised path evaluates them: float32, a fused multiply-add a step.
const LOGARITHM = [
  7.0376836292e-2, -1.151461031e-1, 1.167699874e-1, -1.2420140846e-1, 1.4249322787e-1, -1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1,
  3.3333331174e-1,
].map(f32);
const COSINE = [2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2].map(f32);
const SINE = [-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1].map(f32);
/** −π/4 in three parts, the first two short enough for exact products. */
const QUARTER_TURN = [-0.78515625, -2.4187564849853516e-4, -3.774894977445941e-8].map(f32);

/** a·b + c, rounded once to float32: the product of two float32 is exact in float64. */
function fma(a: number, b: number, c: number): number {
  return f32(a * b + c);
}

function polynomial(x: number, coefficients: readonly number[]): number {
  return coefficients.reduce((sum, coefficient) => fma(sum, x, coefficient));
}

const bits = new DataView(new ArrayBuffer(4));

/** ln x of a positive normal float32. */
function logarithm(x: number): number {
  bits.setFloat32(0, x);
  const word = bits.getUint32(0);
  bits.setUint32(0, (word & 0x007fffff) | 0x3f000000);
  const mantissa = bits.getFloat32(0);
  const isLow = mantissa < f32(Math.SQRT1_2);
  const exponent = (word >>> 23) - (isLow ? 127 : 126);
  const m = isLow ? f32(f32(mantissa - 1) + mantissa) : f32(mantissa - 1);
  const z = f32(m * m);
  let y = f32(polynomial(m, LOGARITHM) * m);
  y = fma(y, z, f32(exponent * f32(-2.1219444e-4)));
  y = f32(y - f32(z * 0.5));
  return f32(f32(m + y) + f32(exponent * 0.693359375));
}

/** sin x and cos x of a float32 from 0 up. */
function sineAndCosine(x: number): readonly [number, number] {
  const octant = (Math.trunc(f32(x * f32(1.27323954473516))) + 1) & ~1;
  const reduced = QUARTER_TURN.reduce((rest, part) => fma(octant, part, rest), x);
  const z = f32(reduced * reduced);
  const c = f32(fma(f32(polynomial(z, COSINE) * z), z, -f32(z * 0.5)) + 1);
  const s = fma(f32(polynomial(z, SINE) * z), reduced, reduced);
  const [sin, cos] = octant & 2 ? [c, s] : [s, c];
  return [octant & 4 ? -sin : sin, (octant - 2) & 4 ? cos : -cos];
}
