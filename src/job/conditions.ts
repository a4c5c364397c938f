/** The condition inputs of a run and their values. */
import { resolve } from "node:path";
import { elemOf, shapeOf } from "../../ir/build.js";
import { unknownName } from "../../ir/diagnostics.js";
import { inputValue, type Value } from "../../ir/graph.js";
import { type TensorData, tensorNumbers } from "../../ir/tensor.js";
import { givenConditions, type Run, scaleInput, uncondInput } from "../../schedules/index.js";
import { inputNumber, missingInput } from "../words/index.js";
import type { Job } from "./job.js";
import type { InputSpecs, ValueSpec } from "./recipe.js";
import { fileOf } from "./source.js";
import { holdsNumber, sampleTensor, tensorFor } from "./values.js";

/**
 * The values of the run's condition inputs for one sample, [rows of the table, …] where there is one for each row, and of its guidance
 * scale if it takes that: from `given`, else the calibration values of the recipe. A scale that neither says is the build's.
 */
export function conditionsOf(job: Job, sample: number, given: InputSpecs = new Map()): ReadonlyMap<string, TensorData> {
  const { run } = job;
  const scale = scaleInput(run);
  const free: readonly GivenInput[] = [...conditionInputs(run), ...(scale ? [{ value: scale }] : [])];
  for (const name of given.keys()) {
    if (!free.some(({ value }) => value.name === name))
      throw unknownName(
        "condition input",
        name,
        free.map(({ value }) => value.name),
      );
  }
  const values = new Map(
    free.map((input) => [
      input.value.name,
      valueOf(job, input, sample, given, input.value === scale ? [run.guidance.scale].flat() : undefined),
    ]),
  );
  if (scale) assertTaken(job, values.get(scale.name));
  return values;
}

/** An input of a run: one value of it, without guidance doubling, and how many there are, if there is one for each row of the table. */
interface GivenInput {
  readonly value: Value;
  readonly rows?: number | undefined;
}

/** The value of an input for one sample; without `otherwise` it must be given, or calibrated with something. */
function valueOf({ source }: Job, { value, rows }: GivenInput, sample: number, given: InputSpecs, otherwise?: ValueSpec): TensorData {
  const shape = shapeOf(value);
  const spec = given.get(value.name);
  if (spec !== undefined) return tensorFor(value, shape, spec, (name) => resolve(name), rows);
  const calibrate = source.recipe.inputs[value.name]?.calibrate ?? (otherwise === undefined ? undefined : [otherwise]);
  if (calibrate === undefined) throw missingInput(value.name, rows === undefined ? shape : [rows, ...shape]);
  return sampleTensor(value, shape, calibrate, sample, (name) => fileOf(source, name), rows);
}

/** Throws INPUT_NUMBER for a guidance scale that the network's own input, where it has one, cannot hold. */
function assertTaken({ model, run }: Job, scale: TensorData | undefined): void {
  const input = model.graph.inputs.find(({ name }) => name === run.guidance.input);
  const misfit = input && scale && tensorNumbers(scale).find((number) => !holdsNumber(elemOf(input), number));
  if (input && misfit !== undefined) throw inputNumber(input.name, elemOf(input), misfit);
}

/** The condition inputs of a run. */
function conditionInputs(run: Run): readonly GivenInput[] {
  return [...givenConditions(run).values()].flatMap(({ type, halves: { cond, uncond } }) =>
    [...new Set([cond, uncond])].flatMap((source) =>
      source.kind === "input" ? [{ value: inputValue(source.name, type), rows: source.perStep?.length }] : [],
    ),
  );
}

/**
 * Whether the export accepts any batch, and the recipe's conditions can be made for any batch:
 * numbers, one per row, grids, or a file of samples.
 */
export function fitsAnyBatch({ source, run, anyBatch }: Job): boolean {
  const fits = [...givenConditions(run)].every(([condition, { type }]) => {
    const { inputs, guidance } = source.recipe;
    const given = [condition, uncondInput(condition)].flatMap((name) => inputs[name] ?? []);
    const calibrated = given.flatMap(({ calibrate = [] }) => (typeof calibrate === "string" ? [] : calibrate));
    const fixed = given.flatMap(({ fix, perStep = 0 }) => [fix ?? 0, typeof perStep === "boolean" ? 0 : perStep]);
    const specs = [...calibrated, ...fixed, guidance.uncond[condition] ?? 0];
    const isOfRows = given.every(({ perStep = false }) => perStep === false) && (type?.shape?.length ?? 0) <= 1;
    return isOfRows || specs.every((spec) => typeof spec !== "string" && !Array.isArray(spec));
  });
  return anyBatch && fits;
}
