/** Policies: how a schedule is chosen from what calibration measured. */
import { z } from "zod";
import type { Named } from "../ir/registry.js";
import type { TensorData } from "../ir/tensor.js";
import type { Adjustments } from "./adjustment.js";
import { type Schedule, type ScheduleCell, valueFor, type PlannedCache } from "./plan.js";
import type { RunIdentity } from "./run.js";
import type { Predicted } from "./predicted.js";
import type { Term } from "./sampler.js";
import type { SiteStatistics } from "./planning/statistics.js";

/** A branch that a policy may cache. */
export interface PolicySite extends PlannedCache {
  /** Share of the cacheable compute of one step; those of all sites add up to 1. */
  readonly share: number;
  /** Absent where nothing was measured. */
  readonly statistics?: SiteStatistics | undefined;
}

/** What a policy chooses from. */
export interface PolicyInput {
  readonly steps: number;
  /** What the network is told at each step, as the sampler's table has it. */
  readonly timesteps: readonly number[];
  /** In execution order. */
  readonly sites: readonly PolicySite[];
  /** Share of the MACs of a run that its branches are. */
  readonly cacheable: number;
  /** The JSON in a file that an option names. Throws FILE_MISSING, BAD_JSON. */
  readonly readJson: (file: string) => unknown;
  /** The tensors in a file that an option names and that `torch.save` wrote, by name. Throws FILE_MISSING, BAD_TORCH_FILE. */
  readonly readTensors: (file: string) => ReadonlyMap<string, TensorData>;
  /** Absent where there is no model to run. */
  readonly runs?: Runs | undefined;
  /** To be told how much of a long search is done. */
  readonly progress: (done: number, total: number) => void;
}

/** Runs of the model, for policies that measure more than the trace has. Every run costs what it computes. */
export interface Runs {
  /** Samples of the calibration, by number. */
  readonly samples: readonly number[];
  /** Whether the network can be cut there (`cutSchema`), as a schedule may want it, with no less of it cached. */
  fits(cut: string): Promise<boolean>;
  /**
   * The final latent of a sample that follows the schedule, or computes everything. `observe` is told after every step what
   * the branches that it computed returned, by the names of their caches.
   */
  run(
    sample: number,
    schedule?: Schedule,
    observe?: (step: number, values: ReadonlyMap<string, TensorData>) => void,
  ): Promise<Float32Array>;
  /** Evaluations of the network so far; one that reads some of its branches counts as the share of the MACs that it computes. */
  evaluations(): number;
  /** How long a run without caching takes here. */
  seconds(): Promise<number>;
  /** The latents of a sample that computes everything: the first, and what every step leaves. */
  latents(sample: number): Promise<readonly Float32Array[]>;
  /** A run that follows the schedule, to be gone through step by step; to `from` it goes as without caching, and nothing of that is read. */
  walk(sample: number, schedule: Schedule, from?: number): Promise<SteppedRun>;
}

/** A run that is gone through step by step. */
export interface SteppedRun {
  /**
   * The latent that the next step leaves where the given branches, by keys of a plan, are these sums over computed steps in
   * place of what the schedule has for them (steps that it reads somewhere); a branch that computes there does so in any case.
   */
  attempt(terms?: ReadonlyMap<string, readonly Term[]>): Promise<Attempt>;
}

export interface Attempt {
  readonly latent: Float32Array;
  /**
   * How far a later latent would be from that of the run without caching if all was exact from the next step on: the next one, or under
   * a sampler of several steps the first behind the last one that reads what this step gives.
   */
  deviation(): Float64Array;
  /** Goes on with it. */
  advance(): Promise<void>;
}

/** What a policy chose: rows of cells, by keys of a plan. A branch that no key speaks of computes always. */
export interface Choice {
  /** The run that it was made for, where it is a plan that is there already. */
  readonly of?: RunIdentity | undefined;
  /** Where the network is cut for it; where the recipe says if absent. */
  readonly cut?: string | undefined;
  readonly cells: ReadonlyMap<string, readonly ScheduleCell[]>;
  /** Scales and shifts of what cached branches return; keys are those of the cells. */
  readonly adjustments?: Adjustments | undefined;
  readonly predicted?: Predicted | undefined;
  /** Sentences for the user. */
  readonly warnings?: readonly string[] | undefined;
}

/** What a policy cannot do without: `trace`: every site has statistics; `runs`: the model is there to be run. */
export type PolicyNeed = "trace" | "runs";

/** One way to choose: a file of `policies/`. */
export interface Policy<Options extends z.ZodObject = z.ZodObject> extends Named {
  readonly summary: string;
  /** Where that depends on its options, a function of them. */
  readonly needs: readonly PolicyNeed[] | ((options: z.output<Options>) => readonly PolicyNeed[]);
  /** Its options, each with a description; numbers may come as text. */
  readonly options: Options;
  /** Those that name a budget, of which one can be asked for. A policy that has any says in `predicted` what its plan was compared with. */
  readonly budgets?: readonly string[];
  /** The option, or what `predicted` has in its place, that measured changes stay below where they are reused. */
  readonly threshold?: string;
  /** Whether it is meant to cache nothing. */
  readonly cachesNothing?: boolean;
  choose(input: PolicyInput, options: z.output<Options>): Choice | Promise<Choice>;
}

/** An option's name as people write it: `max-error` for maxError. */
export function optionWord(name: string): string {
  return name.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}

/** The name that people write so. */
export function optionNamed(word: string): string {
  return word.replaceAll(/-([a-z])/g, (_, letter: string) => letter.toUpperCase());
}

/** Branches that decide together. */
export interface BranchGroup {
  /** The key of a plan that speaks of just these: `attn`, `temporal_attn`, `attn-3`. */
  readonly key: string;
  readonly sites: readonly PolicySite[];
}

/**
 * What decides together: `stream`: branches of one kind in one stream (SmoothCache's paper); `kind`: branches of one kind
 * (SmoothCache's code: the last name of the module's path); `site`: every branch alone.
 */
const GROUPINGS = ["stream", "kind", "site"] as const;
export type Grouping = (typeof GROUPINGS)[number];

/** The option of policies that can decide by any grouping. */
export const groupOption = (otherwise: Grouping): z.ZodType<Grouping> =>
  z
    .enum(GROUPINGS)
    .default(otherwise)
    .describe("what decides together: branches of one kind in one stream, of one kind in all streams, or each site alone");

/** The branches in groups, in the order of their first. */
export function groupBranches<Site extends Pick<PolicySite, "name" | "stream" | "kind">>(
  sites: readonly Site[],
  by: Grouping = "stream",
): readonly { readonly key: string; readonly sites: readonly Site[] }[] {
  const severalStreams = new Set(sites.map(({ stream }) => stream)).size > 1;
  const keyOf = ({ name, stream, kind }: Site): string => {
    if (by === "site") return name;
    return by === "stream" && severalStreams ? `${stream}_${kind}` : kind;
  };
  const groups = new Map<string, Site[]>();
  for (const site of sites) groups.set(keyOf(site), [...(groups.get(keyOf(site)) ?? []), site]);
  return [...groups].map(([key, members]) => ({ key, sites: members }));
}

/** The branches, those that decide together behind one another, each with the key of its group. */
export function withGroups<Site extends Pick<PolicySite, "name" | "stream" | "kind">>(
  sites: readonly Site[],
): readonly (Site & { readonly group: string })[] {
  return groupBranches(sites).flatMap(({ key, sites: members }) => members.map((site) => ({ ...site, group: key })));
}

/** One row for all branches, under the keys that a person would write. */
export function everywhere(sites: readonly PolicySite[], row: readonly ScheduleCell[]): Choice["cells"] {
  return new Map(groupBranches(sites).map(({ key }) => [key, row]));
}

/** The statistics of branches, all of which were measured. */
export function statisticsOf(sites: readonly PolicySite[]): readonly SiteStatistics[] {
  return sites.flatMap(({ statistics }) => statistics ?? []);
}

/** Share of the branches' compute over all steps that the rows compute, from 0 to 1. */
export function computedShare({ steps, sites }: PolicyInput, cells: Choice["cells"]): number {
  let computed = 0;
  let total = 0;
  for (const site of sites) {
    total += site.share * steps;
    computed += site.share * (valueFor(cells, site)?.filter((cell) => cell === 1).length ?? steps);
  }
  return total > 0 ? computed / total : 1;
}
