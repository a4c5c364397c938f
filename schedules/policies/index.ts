/** The known policies, and the way from one to a schedule. */
import { badOption, policyNeedsModel, policyNeedsTrace } from "../diagnostics.js";
import { nearest } from "../../ir/diagnostics.js";
import { hasMethods, loadFolder } from "../../ir/registry.js";
import { fewSteps } from "../few-steps.js";
import type { Schedule } from "../plan.js";
import { computedShare, optionWord, type Policy, type PolicyInput, type PolicyNeed } from "../policy.js";

export function isPolicy(candidate: unknown): candidate is Policy {
  if (!hasMethods(candidate, "choose") || !("options" in candidate) || !("needs" in candidate)) return false;
  const { options, needs } = candidate;
  // A schema may be of another copy of zod than ours.
  return (
    (Array.isArray(needs) || typeof needs === "function") &&
    typeof options === "object" &&
    options !== null &&
    "strict" in options &&
    "shape" in options
  );
}

/** By name, in alphabetical order. */
export const policies: ReadonlyMap<string, Policy> = await loadFolder(import.meta.url, isPolicy);

/** What the policy needs with these options, which are not parsed yet. Throws BAD_OPTION. */
export function needsOf(policy: Policy, options: unknown): readonly PolicyNeed[] {
  return needsUnder(policy, parseOptions(policy, options));
}

/**
 * Lets the policy choose a schedule; returns it with warnings for the user. `options` are not parsed yet.
 * Throws BAD_OPTION, POLICY_NEEDS_TRACE, POLICY_NEEDS_MODEL, and what the policy throws (BAD_CURVES).
 */
export async function chooseSchedule(
  policy: Policy,
  options: unknown,
  input: PolicyInput,
): Promise<{ readonly schedule: Schedule; readonly warnings: readonly string[] }> {
  const parsed = parseOptions(policy, options);
  const needs = needsUnder(policy, parsed);
  if (needs.includes("trace") && input.sites.some(({ statistics }) => !statistics)) throw policyNeedsTrace(policy.name);
  if (needs.includes("runs") && !input.runs) throw policyNeedsModel(policy.name);
  const { of, cut, across, cells, adjustments, predicted, warnings = [] } = await policy.choose(input, parsed);
  const share = computedShare(across === true ? { ...input, borders: [] } : input, cells);
  const few = share < 1 ? fewSteps(input.steps) : [];
  const schedule = {
    of,
    steps: input.steps,
    cut,
    across,
    cells,
    adjustments,
    policy: { name: policy.name, ...parsed },
    predicted: { computedShare: share, ...predicted },
  };
  return { schedule, warnings: [...few, ...warnings] };
}

function needsUnder({ needs }: Policy, parsed: Record<string, unknown>): readonly PolicyNeed[] {
  return typeof needs === "function" ? needs(parsed) : needs;
}

function parseOptions({ name, options: schema }: Policy, options: unknown): Record<string, unknown> {
  const result = schema.strict().safeParse(options);
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  const where = `policy ${name}`;
  const path = (issue?.path ?? []).map((key) => optionWord(String(key)));
  if (issue?.code !== "unrecognized_keys") throw badOption([where, ...path].join(": "), issue?.message ?? "is not valid");
  const [key = ""] = issue.keys.map(optionWord);
  const known = Object.keys(schema.shape).map(optionWord);
  const near = nearest(key, known);
  const suggestion = near === undefined ? "." : `; did you mean '${near}'?`;
  throw badOption(where, `there is no option '${key}'${suggestion} Known: ${known.join(", ") || "none"}`);
}
