/** The conditions of a run: which inputs of the artifact they are, and their values. */
import { elemOf, shapeOf } from "../../ir/build.js";
import { missingInput } from "../words/index.js";
import { unknownName } from "../../ir/diagnostics.js";
import type { Value } from "../../ir/graph.js";
import type { TensorData } from "../../ir/tensor.js";
import { uncondInput } from "../../schedules/index.js";
import { type BoundModel, conditionValues, halfShape } from "./bound-model.js";
import type { InputSpecs } from "./recipe.js";
import { sampleOf, tensorFor } from "./values.js";

/** Values of the artifact's condition inputs for one sample: from `given`, else what the recipe calibrates with. */
export function conditionsOf(job: BoundModel, sample: number, given: InputSpecs = new Map()): ReadonlyMap<string, TensorData> {
  const { recipe, folder } = job.source;
  const free = conditionInputs(job);
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
      if (spec !== undefined) return [value.name, tensorFor(value, shape, spec, process.cwd())];
      const calibrate = recipe.inputs[value.name]?.calibrate;
      if (calibrate === undefined) throw missingInput(value.name, shape);
      return [value.name, sampleOf(value, shape, calibrate, sample, folder)];
    }),
  );
}

/** The condition inputs of the artifact, without guidance doubling. */
function conditionInputs({ model, context }: BoundModel): readonly Value[] {
  return conditionValues(model).flatMap((value) => {
    const half = { ...value, type: { elem: elemOf(value), shape: halfShape(value, context) } };
    const cond = context.fixed.has(value.name) ? [] : [half];
    return context.uncond.get(value.name) === "input" ? [...cond, { ...half, name: uncondInput(value.name) }] : cond;
  });
}

/** Whether the export takes any batch and the recipe's conditions can be had for it: numbers, one a row, grids, or a file of samples. */
export function fitsAnyBatch({ source, model, anyBatch }: BoundModel): boolean {
  const fits = conditionValues(model).every((value) => {
    const { inputs, guidance } = source.recipe;
    const given = [value.name, uncondInput(value.name)].flatMap((name) => inputs[name] ?? []);
    const calibrated = given.flatMap(({ calibrate = [] }) => (typeof calibrate === "string" ? [] : calibrate));
    const specs = [...calibrated, ...given.map(({ fix }) => fix ?? 0), guidance.uncond[value.name] ?? 0];
    return shapeOf(value).length <= 1 || specs.every((spec) => typeof spec !== "string" && !Array.isArray(spec));
  });
  return anyBatch && fits;
}
