/**
 * Rewrites each row of a sampler's table as one weighted sum of latents, outputs and clamped history values.
 * Weights are added in float64.
 */
import type { Row, Term } from "../../schedules/index.js";

/** A weighted sum: the weights by step of latents (x), of guided outputs (out) and of clamped history values (m). */
export interface Sum {
  readonly x: ReadonlyMap<number, number>;
  readonly out: ReadonlyMap<number, number>;
  readonly m: ReadonlyMap<number, number>;
}

export interface SamplerSums {
  /** The next latent of each row, without the noise. */
  readonly next: readonly Sum[];
  /** m_k before clamping, for rows that clamp it. Other history values are never computed: sums contain their terms instead. */
  readonly clamped: readonly (Sum | undefined)[];
  /** The weight of each output that exactly one sum reads, by step. */
  readonly singleUseWeights: ReadonlyMap<number, number>;
}

export function sumsOf(rows: readonly Row[]): SamplerSums {
  const next = rows.map(({ next: { x, m, out = [] } }) => sumOf(rows, x, m, out));
  const clamped = rows.map(({ m }, k) =>
    m.clip === undefined ? undefined : sumOf([], [{ step: k, weight: m.x }], [], [{ step: k, weight: m.out }]),
  );
  const uses = rows.map((_, k) => [...next, ...clamped].flatMap((sum) => sum?.out.get(k) ?? []));
  const singleUseWeights = new Map(
    uses.flatMap(([weight, ...more], k) => (weight !== undefined && more.length === 0 ? [[k, weight] as const] : [])),
  );
  return { next, clamped, singleUseWeights };
}

function sumOf(rows: readonly Row[], x: readonly Term[], m: readonly Term[], out: readonly Term[]): Sum {
  const sum = { x: new Map<number, number>(), out: new Map<number, number>(), m: new Map<number, number>() };
  const add = (to: Map<number, number>, step: number, weight: number): void => {
    if (weight !== 0) to.set(step, (to.get(step) ?? 0) + weight);
  };
  for (const { step, weight } of x) add(sum.x, step, weight);
  for (const { step, weight } of m) {
    const history = rows[step]?.m;
    if (history?.clip !== undefined) add(sum.m, step, weight);
    else if (history) {
      add(sum.x, step, weight * history.x);
      add(sum.out, step, weight * history.out);
    }
  }
  for (const { step, weight } of out) add(sum.out, step, weight);
  return sum;
}
