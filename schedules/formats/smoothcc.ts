/** Our own plan format: plan.json, with the vectors of adjustments in a file beside it. It can hold every schedule. */
import { z } from "zod";
import { MAX_ROWS } from "../../ir/limits.js";
import { parseAdjustments } from "../adjustment.js";
import type { Format } from "../format.js";
import { cutSchema } from "../cut-schema.js";
import { parseWith } from "../parse-with.js";
import { predictedSchema } from "../predicted.js";
import { parseRows, rowsSchema } from "../plan-rows.js";

const PLAN_FORMAT = "smoothcc-plan/2";

const schema = z.strictObject({
  /** Version 1 does not state the run that a plan belongs to. */
  format: z.enum([PLAN_FORMAT, "smoothcc-plan/1"]),
  of: z
    .strictObject({
      structure: z.string(),
      borders: z.array(z.int().min(0)).optional(),
      cut: cutSchema.optional(),
      steps: z.int().min(1).optional(),
      sampler: z.strictObject({ name: z.string(), digest: z.string() }),
      guidance: z.strictObject({ form: z.string(), scale: z.union([z.number(), z.array(z.number())]) }),
    })
    .optional(),
  steps: z.int().min(1).max(MAX_ROWS),
  cut: cutSchema.optional(),
  across: z.boolean().optional(),
  policy: z.record(z.string(), z.unknown()).optional(),
  predicted: predictedSchema.optional(),
  cells: rowsSchema,
  tensors: z.string().optional(),
});

export default {
  name: "smoothcc",
  summary: "plan.json",
  recognises: (json) => typeof json === "object" && json !== null && "format" in json,
  read(json, source, arraysOf) {
    const { of, steps, cut = of?.cut, across, policy, predicted, cells, tensors } = parseWith(schema, json, source);
    const adjustments = tensors === undefined ? undefined : parseAdjustments(arraysOf(tensors), source);
    return { of, steps, cut, across, cells: parseRows(cells, steps), adjustments, policy, predicted };
  },
  write({ of, steps, cut, across, policy, predicted, cells }, _branches, tensors) {
    return {
      format: PLAN_FORMAT,
      ...(of && { of }),
      steps,
      ...(cut !== undefined && cut !== of?.cut && { cut }),
      ...(across === true && { across }),
      ...(policy && { policy }),
      ...(predicted && { predicted }),
      cells: Object.fromEntries(cells),
      ...(tensors !== undefined && { tensors }),
    };
  },
} satisfies Format;
