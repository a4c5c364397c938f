/** The inputs of one sampling run, noise and conditions, which are the same for the artifact and for the loop. */
import { type TensorData, tensorFloats } from "../../ir/tensor.js";
import { elementCount } from "../../ir/types.js";
import { drawingRows, latentShape, type Run } from "../../schedules/index.js";
import { conditionsOf } from "./conditions.js";
import type { Job } from "./job.js";
import { TorchGenerator } from "./noise.js";
import type { InputSpecs } from "./recipe.js";
import { forEveryRow } from "./values.js";

export interface RunInputs {
  /** Unit normals, [batch, …latent]. */
  readonly noise: Float32Array;
  /** Unit normals for the rows of the table that add noise, in order: [draws, batch, …latent]. */
  readonly draws?: Float32Array | undefined;
  /**
   * By name of the condition input, without guidance doubling; where there is a value for each row of the table, [rows, …]; and the guidance
   * scale, if the run takes it.
   */
  readonly conditions: ReadonlyMap<string, TensorData>;
}

export const DEFAULT_SEED = 0;

export interface SampleOptions {
  /** Sample i draws its noise from seed + i, as torch's CPU generator does. Default: 0. */
  readonly seed?: number | undefined;
  /** Replaces the noise of sample 0. */
  readonly noise?: TensorData | undefined;
  /** Values of conditions. Default: the calibration values of the recipe. */
  readonly inputs?: InputSpecs | undefined;
}

/** Noise and conditions of one sample. */
export function sampleInputs(job: Job, sample: number, options: SampleOptions = {}): RunInputs {
  return { ...drawnFor(job.run, sample, options), conditions: conditionsOf(job, sample, options.inputs) };
}

/** The noise of one sample: the initial latent is drawn first, then one latent for every row that adds noise. */
export function drawnFor(run: Run, sample: number, { seed = DEFAULT_SEED, noise }: SampleOptions = {}): Omit<RunInputs, "conditions"> {
  const shape = latentShape(run);
  const size = elementCount(shape);
  const given = sample === 0 && noise ? Float32Array.from(tensorFloats(forEveryRow("noise", shape, noise))) : undefined;
  const generator = new TorchGenerator(seed + sample);
  const initial = generator.randn(size);
  const count = drawingRows(run.table).length;
  const draws = new Float32Array(count * size);
  for (let draw = 0; draw < count; draw++) draws.set(generator.randn(size), draw * size);
  return { noise: given ?? initial, ...(count > 0 ? { draws } : {}) };
}
