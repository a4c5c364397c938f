/** The condition inputs of a run and their values. */
import { resolve } from "node:path";
import { shapeOf } from "../../ir/build.js";
import { unknownName } from "../../ir/diagnostics.js";
import type { Half } from "../../ir/dit.js";
import { inputValue, type Value } from "../../ir/graph.js";
import type { TensorData } from "../../ir/tensor.js";
import { ownConditions, type Run, typeFor, uncondInput } from "../../schedules/index.js";
import { missingInput } from "../words/index.js";
import type { Job } from "./job.js";
import type { InputSpecs } from "./recipe.js";
import { fileOf } from "./source.js";
import { sampleTensor, tensorFor } from "./values.js";

/** The values of the run's condition inputs for one sample: from `given`, else the calibration values of the recipe. */
export function conditionsOf(job: Job, sample: number, given: InputSpecs = new Map()): ReadonlyMap<string, TensorData> {
  const { source } = job;
  const free = conditionInputs(job.run);
  for (const name of given.keys()) {
    if (!free.some((value) => value.name === name))
      throw unknownName(
        "condition input",
        name,
        free.map((value) => value.name),
      );
  }
  return new Map(
    free.map((value) => {
      const shape = shapeOf(value);
      const spec = given.get(value.name);
      if (spec !== undefined) return [value.name, tensorFor(value, shape, spec, (name) => resolve(name))];
      const calibrate = source.recipe.inputs[value.name]?.calibrate;
      if (calibrate === undefined) throw missingInput(value.name, shape);
      return [value.name, sampleTensor(value, shape, calibrate, sample, (name) => fileOf(source, name))];
    }),
  );
}

/** The condition inputs of a run, without guidance doubling: of its networks, where no companion gives them, and of companions. */
function conditionInputs(run: Run): readonly Value[] {
  return [...ownConditions(run).values()].flatMap((condition) => {
    const { cond, uncond } = condition.halves;
    const halves: readonly Half[] = cond === uncond ? ["cond"] : ["cond", "uncond"];
    return halves.flatMap((half) => {
      const source = condition.halves[half];
      return source.kind === "input" ? [inputValue(source.name, typeFor(condition, half))] : [];
    });
  });
}

/**
 * Whether the export accepts any batch, and the recipe's conditions can be made for any batch:
 * numbers, one per row, grids, or a file of samples.
 */
export function fitsAnyBatch({ source, run, anyBatch }: Job): boolean {
  const fits = [...ownConditions(run)].every(([condition, { type }]) => {
    const { inputs, guidance } = source.recipe;
    const given = [condition, uncondInput(condition)].flatMap((name) => inputs[name] ?? []);
    const calibrated = given.flatMap(({ calibrate = [] }) => (typeof calibrate === "string" ? [] : calibrate));
    const specs = [...calibrated, ...given.map(({ fix }) => fix ?? 0), guidance.uncond[condition] ?? 0];
    return (type?.shape?.length ?? 0) <= 1 || specs.every((spec) => typeof spec !== "string" && !Array.isArray(spec));
  });
  return anyBatch && fits;
}
