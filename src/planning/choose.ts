/** Finds a policy, makes its input, and lets it choose a plan. */
import { basename } from "node:path";
import { z } from "zod";
import { badExtension, planSavesNothing } from "../words/index.js";
import { unknownName } from "../../ir/diagnostics.js";
import { totalMacs } from "../../ir/cost.js";
import {
  bind,
  type Choice,
  chooseSchedule,
  type Plan,
  policies,
  type Policy,
  type PolicyInput,
  savesNothing,
  type Schedule,
} from "../../schedules/index.js";
import { loadExtensions, readPlan } from "../job/index.js";
import { readJson, readTorchFile } from "../files/index.js";
import type { PlannedSite, Planning } from "./planning.js";
import { type PlanSummary, summarise } from "./summary.js";

export interface Planned {
  readonly schedule: Schedule;
  /** The branches that the schedule is for. */
  readonly sites: readonly PlannedSite[];
  /** What each branch does at each step. From a trace alone, idle steps are not known. */
  readonly cells: Plan["cells"];
  readonly summary: PlanSummary;
  readonly warnings: readonly string[];
}

/**
 * Lets a policy, given by itself or by its name (`findPolicy`), choose a plan.
 * Throws PLAN_SAVES_NOTHING, and what `findPolicy`, the policy and `bind` throw.
 */
export async function choosePlan(planning: Planning, wanted: string | Policy, options: unknown): Promise<Planned> {
  const policy = typeof wanted === "string" ? await findPolicy(wanted, planning.policies) : wanted;
  const { schedule: chosen, warnings } = await chooseSchedule(policy, options, policyInput(planning));
  const { run, sites } = planning;
  // A plan may be for another cut of the network. Its cells are still shown for the branches of this one.
  const { cells } = bind({ ...chosen, of: chosen.of && { ...chosen.of, cut: undefined } }, run);
  if (policy.cachesNothing !== true && savesNothing({ cells })) throw planSavesNothing();
  const schedule = { ...chosen, of: { ...run.of, cut: chosen.cut ?? run.of.cut } };
  return { schedule, sites, cells, warnings, summary: summarise(planning, schedule, cells) };
}

/**
 * The policy of a name: a built-in one, one of the user's own, the path of a file that exports one, or a plan file of any known format,
 * which becomes a policy that chooses this plan. Throws UNKNOWN_NAME, BAD_EXTENSION and what reading a plan throws.
 */
export async function findPolicy(name: string, own: readonly Policy[] = []): Promise<Policy> {
  const known = policies.get(name) ?? own.find((policy) => policy.name === name);
  if (known) return known;
  if (/\.[cm]?[jt]s$/.test(basename(name))) {
    const [policy] = (await loadExtensions([name])).policies;
    if (!policy) throw badExtension(name, "it exports no policy");
    return policy;
  }
  if (name.endsWith(".json")) return policyOf(name);
  throw unknownName("policy", name, [...policies.keys(), ...own.map(({ name }) => name)]);
}

/** A plan file as a policy, which chooses the plan in the file. */
function policyOf(file: string): Policy {
  const { of, cut, across, cells, adjustments, predicted } = readPlan(file);
  const choose = (): Choice => ({ of, cut, across, cells, adjustments, predicted });
  return { name: basename(file), summary: "the plan in this file", needs: [], options: z.object({}), choose };
}

export function policyInput({ run, timesteps, macs, sites, runs, progress }: Planning): PolicyInput {
  const cacheable = sites.reduce((sum, { macs }) => sum + totalMacs(macs), 0);
  const shared = sites.map((site) => ({ ...site, share: totalMacs(site.macs) / cacheable }));
  return {
    steps: run.called.length,
    timesteps,
    borders: run.of.borders,
    sites: shared,
    cacheable: cacheable / totalMacs(macs),
    runs,
    readJson,
    readTensors: readTorchFile,
    progress: (done, total) => progress?.("plan", done, total),
  };
}
