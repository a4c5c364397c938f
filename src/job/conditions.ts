/** The condition inputs of a run and their values. */
import { resolve } from "node:path";
import { shapeOf } from "../../ir/build.js";
import { unknownName } from "../../ir/diagnostics.js";
import { inputValue, type Value } from "../../ir/graph.js";
import type { TensorData } from "../../ir/tensor.js";
import { givenConditions, type Run, uncondInput } from "../../schedules/index.js";
import { missingInput } from "../words/index.js";
import type { Job } from "./job.js";
import type { InputSpecs } from "./recipe.js";
import { fileOf } from "./source.js";
import { sampleTensor, tensorFor } from "./values.js";

/**
 * The values of the run's condition inputs for one sample, [rows of the table, …] where there is one for each row: from `given`, else
 * the calibration values of the recipe.
 */
export function conditionsOf(job: Job, sample: number, given: InputSpecs = new Map()): ReadonlyMap<string, TensorData> {
  const { source } = job;
  const free = conditionInputs(job.run);
  for (const name of given.keys()) {
    if (!free.some(({ value }) => value.name === name))
      throw unknownName(
        "condition input",
        name,
        free.map(({ value }) => value.name),
      );
  }
  return new Map(
    free.map(({ value, rows }) => {
      const shape = shapeOf(value);
      const spec = given.get(value.name);
      if (spec !== undefined) return [value.name, tensorFor(value, shape, spec, (name) => resolve(name), rows)];
      const calibrate = source.recipe.inputs[value.name]?.calibrate;
      if (calibrate === undefined) throw missingInput(value.name, rows === undefined ? shape : [rows, ...shape]);
      return [value.name, sampleTensor(value, shape, calibrate, sample, (name) => fileOf(source, name), rows)];
    }),
  );
}

/**
 * The condition inputs of a run: one value of each, without guidance doubling, and how many there are, if there is one for each row of
 * the table.
 */
function conditionInputs(run: Run): readonly { readonly value: Value; readonly rows: number | undefined }[] {
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
