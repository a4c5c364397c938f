/**
 * Inpainting for networks without channels for it, as diffusers' inpaint pipelines do it (`pipeline_stable_diffusion_3_inpaint.py`,
 * `pipeline_flux_inpaint.py`): behind every step, what the mask keeps is the original again, noised to the level of that latent by the
 * noise that the run starts from.
 */
import { type Builder, floatScalar, shapeOf } from "../../ir/build.js";
import { entryAt } from "../../ir/entries.js";
import type { Value } from "../../ir/graph.js";
import type { StandardOperator } from "../../ir/operators.js";
import { levelsBehind, startLevel } from "../../schedules/index.js";
import type { Calls } from "./calls.js";
import type { Step } from "./step.js";

/** The latent that the run starts from. */
export function firstLatent({ noise, run, original }: Calls, build: Builder, name: string): Value {
  const { table } = run;
  const level = run.original?.isStarted ? startLevel(table) : undefined;
  if (!original || !level) return build.weightedSum([{ value: noise, weight: table.initialScale }], name);
  return build.weightedSum(
    [
      { value: original.image, weight: level.signal },
      { value: noise, weight: level.noise },
    ],
    name,
  );
}

/** Puts what the mask keeps of the original into the latents behind steps: mask · next + (1 − mask) · (signal · image + noise · unit normal). */
export class Inpainting {
  /** The factors of signal and noise, where they are the same at all steps. */
  private kept: Kept | undefined;

  constructor(private readonly calls: Calls) {}

  /** The latent that is in the place of `next` behind a step: `next` itself where the run is no inpainting. */
  blended(next: Value, step: Step, name: string): Value {
    const { body, prologue, original, run } = this.calls;
    const levels = levelsBehind(run.table);
    if (!original?.mask || !levels) return next;
    const places = run.original?.mask?.halves.cond.perStep;
    const mask = places ? step.value(original.mask, places, `${step.label}/mask`) : original.mask;
    const kept = places ? this.keptBy(mask, body, step.label) : (this.kept ??= this.keptBy(mask, prologue, "steps"));
    const made = body.op("Mul", [mask, next], `${step.label}/made`, { elem: "float", shape: shapeOf(next) });
    return body.weightedSum(
      [
        { value: made, weight: 1 },
        { value: kept.image, weight: step.weight(`${step.label}/kept_signal`, (row) => entryAt(levels, row).signal) },
        { value: kept.noise, weight: step.weight(`${step.label}/kept_noise`, (row) => entryAt(levels, row).noise) },
      ],
      name,
    );
  }

  private keptBy(mask: Value, build: Builder, label: string): Kept {
    const { original, noise } = this.calls;
    if (!original) throw new Error("internal: nothing is kept");
    const op = (opType: StandardOperator, inputs: readonly Value[], name: string, like: Value): Value =>
      build.op(opType, inputs, `${label}/${name}`, { elem: "float", shape: shapeOf(like) });
    const share = op("Sub", [floatScalar(1), mask], "kept", mask);
    return { image: op("Mul", [share, original.image], "kept_image", noise), noise: op("Mul", [share, noise], "kept_noise", noise) };
  }
}

interface Kept {
  readonly image: Value;
  readonly noise: Value;
}
