/** A policy from a file of the user's own: what goes wrong in it is the file's, and its choice is looked at before it is followed. */
import { basename } from "node:path";
import { z } from "zod";
import { badExtension, CompilerError } from "../ir/diagnostics.js";
import { cutSchema, predictedSchema, type Choice, type Policy } from "../schedules/index.js";

const cell = z.union([z.literal(0), z.literal(1), z.array(z.tuple([z.number(), z.number()]))], {
  error: "a cell is 1, 0 or [[step, weight], …]",
});
const vector = z.instanceof(Float32Array).optional();
const choiceSchema = z.object({
  cut: cutSchema.optional(),
  cells: z.map(z.string(), z.array(cell)),
  adjustments: z.map(z.string(), z.map(z.number(), z.object({ scale: vector, shift: vector }))).optional(),
  predicted: predictedSchema.optional(),
  warnings: z.array(z.string()).optional(),
});

/** The policy, which throws BAD_EXTENSION where it would throw what is no CompilerError, or choose what is no choice. */
export function ownPolicy(file: string, policy: Policy): Policy {
  return {
    ...policy,
    async choose(input, given) {
      let choice: Choice;
      try {
        choice = await policy.choose(input, given);
      } catch (error) {
        throw error instanceof CompilerError ? error : badExtension(file, `its policy fails: ${describe(error, file)}`);
      }
      const result = choiceSchema.safeParse(choice);
      if (result.success) return result.data;
      const [issue] = result.error.issues;
      const at = issue?.path.map(String).join(".") ?? "";
      throw badExtension(file, `its policy has chosen what is no plan: ${at === "" ? "" : `'${at}': `}${issue?.message ?? ""}`);
    },
  };
}

/** What was thrown, and where in the file. */
function describe(error: unknown, file: string): string {
  if (!(error instanceof Error)) return String(error);
  const line = error.stack?.split("\n").find((line) => line.includes(`${basename(file)}:`));
  return `${error.name}: ${error.message}${line === undefined ? "" : ` (${line.trim()})`}`;
}
