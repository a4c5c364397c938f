/**
 * Makes the whole run from one step. It calls the network for every row of the sampler's table, once or for each half of the guidance,
 * and places the guidance and the sampler's sums between the calls.
 */
import { shapeOf, type WeightedValue } from "../ir/build.js";
import { entryAt } from "../ir/entries.js";
import { opsetOf, type Value } from "../ir/graph.js";
import { stopName, withMainNetwork } from "../schedules/index.js";
import type { Pass } from "./pass.js";
import { Calls } from "./lowering/calls.js";
import { GuidedPrediction } from "./lowering/guided.js";
import { firstLatent, Inpainting } from "./lowering/inpainting.js";
import { clamped as clampedTo, drawAt } from "./lowering/sampling.js";
import { KnownStep, StepParts } from "./lowering/step.js";
import { type Sum, sumsOf } from "./lowering/sums.js";

export default {
  name: "unroll",
  summary: "call the step once per row of the sampler, or per half, and wire the calls",
  preserves: "rounding",
  run(step, { run }) {
    const calls = new Calls(withMainNetwork(run, step));
    const latents = sample(calls, opsetOf(step));
    const stops = run.stops?.map((row) => ({ name: stopName(row), value: entryAt(latents, row) }));
    return calls.finish(calls.body.nodes, entryAt(latents, run.table.rows.length), calls.marks, stops);
  },
} satisfies Pass;

/** Builds the sampling run; returns the latent that each row sees, and the last one. */
function sample(calls: Calls, opset: number): readonly Value[] {
  const { body, prologue, noise, run } = calls;
  const inpainting = new Inpainting(calls);
  const { rows } = run.table;
  const digits = String(rows.length - 1).length;
  const label = (k: number): string => `step${String(k).padStart(digits, "0")}`;
  const guided = new GuidedPrediction(body, run, shapeOf(noise), opset, calls.scale);
  const parts = new StepParts(prologue);
  const { next, clamped, singleUseWeights } = sumsOf(rows);
  const { sign } = run.prediction;
  let latent = firstLatent(calls, body, `${label(0)}/latent`);
  const latents = [latent];
  /** The terms of each output. An output that is read once already has its weight in them. */
  const outs: (readonly WeightedValue[])[] = [];
  const histories = new Map<number, Value>();
  const outOf = ([step, weight]: readonly [number, number]): readonly WeightedValue[] =>
    entryAt(outs, step).map((term) => (singleUseWeights.has(step) ? term : { ...term, weight: term.weight * weight }));
  const historyOf = ([step, weight]: readonly [number, number]): WeightedValue => ({ value: required(histories.get(step)), weight });
  /** `earlier`: the terms of a sum of row `k` that are known before the call of the network; `called`: those that the call gives. */
  const earlier = (sum: Sum | undefined, k: number): readonly WeightedValue[] => [
    ...Array.from(sum?.x ?? [], ([step, weight]) => ({ value: entryAt(latents, step), weight })),
    ...Array.from(sum?.out ?? [])
      .filter(([step]) => step < k)
      .flatMap(outOf),
    ...Array.from(sum?.m ?? [])
      .filter(([step]) => step < k)
      .map(historyOf),
  ];
  const called = (sum: Sum | undefined, k: number): readonly WeightedValue[] => [
    ...Array.from(sum?.out ?? [])
      .filter(([step]) => step === k)
      .flatMap(outOf),
    ...Array.from(sum?.m ?? [])
      .filter(([step]) => step === k)
      .map(historyOf),
  ];
  for (const [k, row] of rows.entries()) {
    const step = new KnownStep(k, label(k), prologue, parts);
    const name = k === rows.length - 1 ? calls.ports.latent : `${label(k + 1)}/latent`;
    // These products come before the call: the runtime visits later nodes first (`executionOrder`), and so computes the call before them.
    const kept = body.products(earlier(next[k], k), name);
    const seen = body.weightedSum([{ value: latent, weight: row.inputScale }], `${label(k)}/scaled`);
    const outputs = calls.at(step, entryAt(run.rows, k).calls, seen);
    const terms = guided.terms(outputs, step, (row) => sign * (singleUseWeights.get(row) ?? 1));
    outs.push(
      singleUseWeights.has(k) || terms.length === 1 ? terms : [{ value: body.weightedSum(terms, `${label(k)}/guided`), weight: 1 }],
    );
    const history = clamped[k] && body.weightedSum([...earlier(clamped[k], k), ...called(clamped[k], k)], `${label(k)}/history`);
    if (history)
      histories.set(
        k,
        clampedTo(body, history, step, () => row.m.clip ?? Infinity),
      );
    const draw = row.next.noise === 0 ? undefined : drawAt(calls, step);
    const random = draw && row.next.learned ? guided.learnedNoise(outputs, draw, () => row.next.learned, step) : draw;
    const stepped = run.original?.mask ? `${label(k)}/next` : name;
    const made = body.weightedSum(
      [...kept, ...called(next[k], k), ...(random ? [{ value: random, weight: row.next.noise }] : [])],
      stepped,
    );
    latent = inpainting.blended(made, step, name);
    latents.push(latent);
  }
  return latents;
}

function required<T>(value: T | undefined): T {
  if (value === undefined) throw new Error("internal: the sampler's table points at a step that is not there");
  return value;
}
