/** Fits adjustments to runs without caching: the scale and shift that bring a reused value closest to the computed one. */
import { type TensorData, tensorFloats } from "../../ir/tensor.js";
import type { Adjustment, Adjustments } from "../adjustment.js";
import { valueFor } from "../plan.js";
import type { Choice, PolicyInput, Runs } from "../policy.js";

/**
 * A scale and a shift for every cell that reuses a value, site by site. For each channel they minimise
 * Σ (scale · x + shift − y)² over tokens and samples, where x is the value that the cell reads and y the value that its step computes,
 * both from runs without caching. Only values that a later cell reads are kept in memory.
 */
export async function fitAdjustments(
  { steps, sites, progress }: Pick<PolicyInput, "steps" | "sites" | "progress">,
  runs: Runs,
  cells: Choice["cells"],
): Promise<Adjustments> {
  const rows = sites.map((site) => [site.name, valueFor(cells, site) ?? []] as const);
  const moments = new Map(rows.map(([site]) => [site, new Map<number, ChannelMoments>()]));
  let done = 0;
  for (const sample of runs.samples) {
    const kept = new Map<string, TensorData>();
    const observe = (step: number, values: ReadonlyMap<string, TensorData>): void => {
      for (const [site, row] of rows) {
        const value = values.get(site);
        if (!value) continue;
        const reused = kept.get(site);
        if (row[step] === 1) kept.set(site, value);
        else if (reused) momentsAt(moments.get(site), step, value).add(tensorFloats(reused), tensorFloats(value));
        if (row[step + 1] !== 0) kept.delete(site);
      }
      progress(++done, runs.samples.length * steps);
    };
    await runs.run(sample, undefined, observe);
  }
  const fitted = [...moments].map(([site, ofSite]) => [site, new Map([...ofSite].map(([step, sums]) => [step, sums.fit()]))] as const);
  return new Map(fitted.filter(([, ofSite]) => ofSite.size > 0));
}

function momentsAt(ofSite: Map<number, ChannelMoments> | undefined, step: number, { shape }: TensorData): ChannelMoments {
  const known = ofSite?.get(step) ?? new ChannelMoments(shape.at(-1) ?? 1);
  ofSite?.set(step, known);
  return known;
}

/** Sums over tokens and samples for each channel, from which the least-squares line follows. */
class ChannelMoments {
  private readonly x: Float64Array;
  private readonly y: Float64Array;
  private readonly xx: Float64Array;
  private readonly xy: Float64Array;
  private count = 0;

  constructor(private readonly channels: number) {
    this.x = new Float64Array(channels);
    this.y = new Float64Array(channels);
    this.xx = new Float64Array(channels);
    this.xy = new Float64Array(channels);
  }

  add(x: ArrayLike<number>, y: ArrayLike<number>): void {
    this.count += x.length / this.channels;
    for (let i = 0, c = 0; i < x.length; i++, c = c + 1 === this.channels ? 0 : c + 1) {
      const from = x[i] ?? NaN;
      const to = y[i] ?? NaN;
      this.x[c] = (this.x[c] ?? NaN) + from;
      this.y[c] = (this.y[c] ?? NaN) + to;
      this.xx[c] = (this.xx[c] ?? NaN) + from * from;
      this.xy[c] = (this.xy[c] ?? NaN) + from * to;
    }
  }

  /** The line y = scale · x + shift of every channel; a constant channel only gets a shift. */
  fit(): Adjustment {
    const mean = (sums: Float64Array, c: number): number => (sums[c] ?? NaN) / this.count;
    const scale = Float64Array.from({ length: this.channels }, (_, c) => {
      const variance = mean(this.xx, c) - mean(this.x, c) ** 2;
      return variance > FLAT * mean(this.xx, c) ? (mean(this.xy, c) - mean(this.x, c) * mean(this.y, c)) / variance : 1;
    });
    const shift = scale.map((factor, c) => mean(this.y, c) - factor * mean(this.x, c));
    return { scale: Float32Array.from(scale), shift: Float32Array.from(shift) };
  }
}

/** A variance below this share of the mean square is rounding. */
const FLAT = 1e-12;
