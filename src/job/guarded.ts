/** Guards around extensions: errors in them are reported with their file, and their results are checked before use. */
import { basename } from "node:path";
import { z } from "zod";
import { assertWellFormed } from "../../ir/check.js";
import { badExtension } from "../words/index.js";
import { CompilerError } from "../../ir/diagnostics.js";
import type { Recogniser } from "../../ir/recogniser.js";
import type { OwnPass } from "../../passes/pass.js";
import { cellSchema, cutSchema, type Policy, predictedSchema, type Sampler } from "../../schedules/index.js";

const vector = z.instanceof(Float32Array).optional();
const choiceSchema = z.object({
  cut: cutSchema.optional(),
  cells: z.map(z.string(), z.array(cellSchema)),
  adjustments: z.map(z.string(), z.map(z.number(), z.object({ scale: vector, shift: vector }))).optional(),
  predicted: predictedSchema.optional(),
  warnings: z.array(z.string()).optional(),
});

/** The policy, with BAD_EXTENSION in place of any error but a CompilerError, and for a result that is no `Choice`. */
export function guardedPolicy(file: string, policy: Policy): Policy {
  return {
    ...policy,
    async choose(input, options) {
      const choice = await later(file, "policy", () => policy.choose(input, options));
      const result = choiceSchema.safeParse(choice);
      if (result.success) return result.data;
      const [issue] = result.error.issues;
      const at = issue?.path.map(String).join(".") ?? "";
      throw badExtension(file, `its policy has chosen what is no plan: ${at === "" ? "" : `'${at}': `}${issue?.message ?? ""}`);
    },
  };
}

/** The pass, with BAD_EXTENSION in place of any error but a CompilerError, and for a result that is no well-formed graph. */
export function guardedPass(file: string, pass: OwnPass): OwnPass {
  const run: OwnPass["run"] = (model, context, count) =>
    later(file, "pass", async () => {
      const made = await pass.run(model, context, count);
      assertWellFormed(made, { types: model, marks: model });
      return made;
    });
  return { ...pass, run };
}

/** The sampler, likewise. */
export function guardedSampler(file: string, sampler: Sampler): Sampler {
  return { ...sampler, table: (config, options) => within(file, "sampler", () => sampler.table(config, options)) };
}

/** The recogniser, likewise. */
export function guardedRecogniser(file: string, recogniser: Recogniser): Recogniser {
  return { ...recogniser, recognise: (facts) => within(file, "recogniser", () => recogniser.recognise(facts)) };
}

function within<T>(file: string, what: string, act: () => T): T {
  try {
    return act();
  } catch (error) {
    throw failure(file, what, error);
  }
}

async function later<T>(file: string, what: string, act: () => T | Promise<T>): Promise<T> {
  try {
    return await act();
  } catch (error) {
    throw failure(file, what, error);
  }
}

function failure(file: string, what: string, error: unknown): CompilerError {
  return error instanceof CompilerError ? error : badExtension(file, `its ${what} fails: ${describe(error, file)}`);
}

/** The message of an error, and where in the file it was thrown. */
function describe(error: unknown, file: string): string {
  if (!(error instanceof Error)) return String(error);
  const line = error.stack?.split("\n").find((line) => line.includes(`${basename(file)}:`));
  return `${error.name}: ${error.message}${line === undefined ? "" : ` (${line.trim()})`}`;
}
