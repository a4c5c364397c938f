/**
 * Token Caching (TokenCache, arXiv 2409.18523): steps at which every branch is computed for all of its tokens take turns with steps at which it
 * is computed for some, and the others keep what they had. The paper's two-phase round-robin has two phases of a run with intervals of their
 * own; it leaves open where they meet (here: an option), whether the second one begins with a full step (no: the steps since the last one count
 * on) and what the last step does (it is full: no later one makes up for it). Its last blocks are never cached, nor are they here; they have no
 * LoRA. Its predictor of scores is trained with the network, per input; what takes its place is fixed before the run:
 *
 * - how many tokens: the same for all branches, or in proportion to what a branch's forecast misses, as measured, for the same mean;
 * - which (`by`): in turn; one of each run of neighbours, as ClusCa's representatives (arXiv 2509.10312, whose clusters k-means finds at run
 *   time); or those whose cached value misses most in runs without caching. The last is what ToCa (arXiv 2410.05317) has four scores for: what
 *   attention and conditions say about a token is replaced by the measured miss, which is small for tokens that were computed lately, and
 *   neighbours are discouraged likewise. Or the choice is left to the run: those of which what comes into the branch has changed most.
 * - what the others do: keep their value or go on with its series (`order`), and move with the surprise of the computed ones, by a weight
 *   as ClusCa's γ for those of a cluster, or by weights fitted to runs without caching.
 *
 * Trained score maps are not imported: no file of theirs is published whose format could be followed.
 */
import { z } from "zod";
import { policyNeedsModel } from "../diagnostics.js";
import type { CellArrays } from "../adjustment.js";
import { clusters, freshOf, isPartialCell, type PartialCell, tokenCount, type TokenGrid } from "../partial.js";
import { cellOf, type ScheduleCell, termsOf } from "../plan.js";
import { fitTokens, type TokenRow } from "../planning/fit-tokens.js";
import { polynomial } from "../planning/forecast.js";
import { forecastError, mean } from "../planning/statistics.js";
import type { Policy, PolicyInput, PolicySite } from "../policy.js";
import { sumOfTerms } from "../sampler.js";

const options = z
  .object({
    intervals: z
      .string()
      .regex(/^[1-9]\d*,[1-9]\d*$/, "takes two numbers from 1 up with a comma between")
      .default("4,4")
      .describe("compute all tokens at every n-th step: in the first phase, in the second"),
    split: z.coerce.number().min(0).max(1).default(0.5).describe("share of the steps in the first phase"),
    ratio: z.coerce.number().gt(0).lt(1).default(0.25).describe("share of the tokens that the other steps compute, mean over the branches"),
    ratios: z
      .enum(["even", "measured"])
      .optional()
      .describe("whether branches that miss more compute more tokens; measured where runs are made anyway, else even"),
    by: z
      .enum(["stagger", "cluster", "mask", "change"])
      .default("stagger")
      .describe(
        "which tokens: in turn, one of each part of the picture or run of neighbours, those that miss most in runs of the model, or those that changed most, as found in the run",
      ),
    spread: z.coerce.number().min(0).max(1).default(0.5).describe("by mask: how much less the neighbours of a chosen token count"),
    move: z
      .enum(["none", "fitted"])
      .default("none")
      .describe("whether the other tokens move with what computing changed, by weights that fit runs of the model"),
    propagate: z.coerce
      .number()
      .min(0)
      .max(1)
      .default(0)
      .describe("by cluster: how far the others of a cluster move with its computed token"),
    order: z.coerce.number().int().min(0).max(4).default(0).describe("degree of the series that cached tokens go on with; 0 reuses"),
    kv: z.enum(["fresh", "cached"]).default("fresh").describe("keys and values of the other tokens: computed as well, or cached with them"),
    last: z.coerce.number().int().min(0).default(1).describe("how many of the last blocks are always computed"),
  })
  .refine(({ by, move }) => by !== "change" || move === "none", {
    message: "takes move fitted with tokens that are known before the run, and by change finds them in it",
  })
  .refine(({ propagate, by, move }) => propagate === 0 || (by === "cluster" && move === "none"), {
    message: "takes propagate with by cluster alone, and not with move",
  });

type Options = z.output<typeof options>;

export default {
  name: "token-caching",
  summary: "compute all tokens at every n-th step, and some of them between",
  needs: (given) => [...(isMeasured(given) ? (["trace"] as const) : []), ...(isFitted(given) ? (["runs"] as const) : [])],
  options,
  async choose(input, given) {
    const { sites, warnings } = tokenSites(input, given);
    const computes = fullSteps(input, given);
    const sizes = sizesOf(input, sites, computes, given);
    const cells = new Map<string, readonly ScheduleCell[]>();
    const rows: TokenRow[] = [];
    for (const { name, tokens, ...site } of sites) {
      const size = sizes.get(name);
      const partial = size !== undefined && tokens ? partialCell(size / tokens.count, site, given) : undefined;
      const row = rowOf(computes, partial, given.order, input.borders);
      cells.set(name, row);
      if (partial && tokens)
        rows.push({ name, count: tokens.count, columns: tokens.columns, cells: row, arrays: listedTokens(row, tokens, given) });
    }
    if (isFitted(given)) {
      if (!input.runs) throw policyNeedsModel("token-caching");
      await fitTokens(input, input.runs, rows, { chooses: given.by === "mask", spread: given.spread, moves: given.move === "fitted" });
    }
    const adjustments = new Map(rows.flatMap(({ name, arrays }) => (arrays.size > 0 ? [[name, arrays] as const] : [])));
    return { cells, adjustments, warnings };
  },
} satisfies Policy<typeof options>;

/** Whether runs of the model are made. */
function isFitted({ by, move }: Options): boolean {
  return by === "mask" || move === "fitted";
}

function isMeasured(given: Options): boolean {
  return (given.ratios ?? (isFitted(given) ? "measured" : "even")) === "measured";
}

/** A branch that is cached; `tokens` are there if some of them can be computed. */
type TokenSite = PolicySite & { readonly keepsKeys: boolean; readonly by: Options["by"] };

/** The branches that are cached, which are those of all but the last blocks, and what to tell about them. */
function tokenSites(
  { sites }: PolicyInput,
  { last, kv, by }: Options,
): { readonly sites: readonly TokenSite[]; readonly warnings: readonly string[] } {
  const cached = withoutLastBlocks(sites, last);
  const without = cached.filter(({ tokens }) => !tokens || tokens.count < 2);
  const mixed = cached.filter(({ tokens }) => tokens?.mixer !== undefined && tokens.count > 1);
  const apart = cached.filter((site) => !without.includes(site) && !mixed.includes(site));
  const computesKeys = apart.filter(({ kind, tokens }) => (kind === "attn" || kind === "single") && tokens?.shareWithKeys === undefined);
  const canChoose = ({ tokens }: PolicySite): boolean => tokens?.choice !== undefined && tokens.choice.mixer === undefined;
  const inTurn = by === "change" ? apart.filter((site) => !canChoose(site)) : [];
  const told = (branches: readonly PolicySite[], why: (first: PolicySite) => string): string[] =>
    branches.slice(0, 1).map((first) => `${why(first)}: ${listed(branches)}.`);
  const warnings = [
    ...told(
      without,
      () => "Cached whole between full steps, as it is not known which axis counts their tokens, or there is one token only",
    ),
    ...told(mixed, ({ tokens }) => `Cached whole between full steps, as something mixes their tokens (${tokens?.mixer ?? ""})`),
    ...(kv === "cached" ? told(computesKeys, () => "Keys and values are computed of all tokens, as it is not known which they are") : []),
    ...told(inTurn, () => "Tokens are computed in turn where they cannot be chosen in the run"),
  ];
  return {
    sites: cached.map((site) => ({
      ...site,
      tokens: apart.includes(site) ? site.tokens : undefined,
      keepsKeys: kv === "cached" && site.tokens?.shareWithKeys !== undefined,
      by: inTurn.includes(site) ? ("stagger" as const) : by,
    })),
    warnings,
  };
}

/** The names of the first few branches. */
function listed(branches: readonly PolicySite[]): string {
  const names = branches.map(({ name }) => name);
  return names.length > 4 ? `${names.slice(0, 3).join(", ")} and ${names.length - 3} more` : names.join(", ");
}

/** A block ends where the number of the block changes; the blocks of another stream may begin at 0 again. */
function withoutLastBlocks(sites: readonly PolicySite[], last: number): readonly PolicySite[] {
  const ends = sites.flatMap(({ block }, i) => (i + 1 === sites.length || sites[i + 1]?.block !== block ? [i + 1] : []));
  return sites.slice(0, [0, ...ends].at(-1 - last) ?? 0);
}

/** The steps that compute all tokens: the first and the last one, and each that is as far from the one before as its phase says. */
function fullSteps({ steps }: PolicyInput, { intervals, split }: Options): readonly boolean[] {
  const [early = 1, late = 1] = intervals.split(",").map(Number);
  let latest = -Infinity;
  return Array.from({ length: steps }, (_, step) => {
    const isFull = step - latest >= (step < split * steps ? early : late) || step === steps - 1;
    if (isFull) latest = step;
    return isFull;
  });
}

/**
 * How many tokens the partial cells of each branch compute: at least one, and not all. Where it is measured, a share in proportion to the relative
 * L2 error of the branch's series from full steps, mean over the other steps, so that as many MACs are left as with the same share for all.
 */
function sizesOf(
  input: PolicyInput,
  sites: readonly TokenSite[],
  computes: readonly boolean[],
  given: Options,
): ReadonlyMap<string, number> {
  const series = rowOf(computes, undefined, given.order, input.borders);
  const parts = sites.flatMap(({ name, share, tokens, keepsKeys, statistics }) => {
    if (!tokens) return [];
    const errors = series.flatMap((cell, step) =>
      cell !== 1 && statistics ? [forecastError([statistics], step, termsOf(cell, series.lastIndexOf(1, step)))] : [],
    );
    const falls = (keepsKeys ? tokens.shareWithKeys : undefined) ?? tokens.share;
    return [{ name, weight: share * falls, count: tokens.count, miss: mean(errors) }];
  });
  const canMeasure = isMeasured(given) && parts.every(({ miss }) => Number.isFinite(miss)) && parts.some(({ miss }) => miss > 0);
  const clamped = (ratio: number, count: number): number => Math.min(1 - 1 / count, Math.max(1 / count, ratio));
  const even = parts.map((part) => ({ ...part, miss: canMeasure ? part.miss : 1 }));
  const left = (factor: number): number => even.reduce((sum, { weight, miss, count }) => sum + weight * clamped(factor * miss, count), 0);
  const wanted = even.reduce((sum, { weight, count }) => sum + weight * clamped(given.ratio, count), 0);
  const factor = rootOf((factor) => left(factor) - wanted, 0, Math.max(...even.map(({ miss }) => (miss > 0 ? 1 / miss : 0))));
  return new Map(even.map(({ name, miss, count }) => [name, tokenCount(clamped(factor * miss, count), count)]));
}

/** Where a function that does not fall is 0, or nearest to it, by bisection. */
function rootOf(f: (x: number) => number, low: number, high: number): number {
  for (let i = 0; i < 60; i++) {
    const middle = (low + high) / 2;
    if (f(middle) < 0) low = middle;
    else high = middle;
  }
  return high;
}

function partialCell(share: number, { keepsKeys, by }: Pick<TokenSite, "keepsKeys" | "by">, given: Options): PartialCell {
  const isMoved = hasMoves(given);
  return { tokens: share, by: isMoved ? "mask" : by, ...(keepsKeys && { kv: "cached" }), ...(isMoved && { move: true }) };
}

/** Weights belong to tokens: cells that have them list theirs, however these are chosen. */
function hasMoves({ move, propagate }: Options): boolean {
  return move === "fitted" || propagate > 0;
}

/** The tokens of cells that list them, as far as they are known before runs; with the weights of a cluster, if it has any. */
function listedTokens(cells: readonly ScheduleCell[], grid: TokenGrid, given: Options): Map<number, CellArrays> {
  const { by, propagate } = given;
  const partial = cells.flatMap((cell, step) => (isPartialCell(cell) ? [{ cell, step }] : []));
  if (by === "mask" || !hasMoves(given)) return new Map();
  return new Map(
    partial.map(({ cell, step }, turn) => {
      const { tokens = [] } = freshOf({ ...cell, by, move: false }, { ...grid, key: "", step, turn });
      return [step, { tokens, ...(propagate > 0 && { move: propagated(tokens, grid, propagate) }) }];
    }),
  );
}

/** The weight for all tokens of a cluster and the one of it that is computed: [all, computed]. */
function propagated(tokens: readonly number[], grid: TokenGrid, weight: number): Float32Array {
  const move = new Float32Array(grid.count * tokens.length);
  for (const cluster of clusters(tokens.length, grid)) {
    const computed = tokens.findIndex((token) => cluster.includes(token));
    for (const token of cluster) move[token * tokens.length + computed] = weight;
  }
  return move;
}

/**
 * The row of a branch. What a cached token reads is the latest value, and what the polynomial through the newest full steps adds from that one's
 * step on; so that tokens that were computed since are not lost. At a border the row begins anew.
 */
function rowOf(
  computes: readonly boolean[],
  partial: PartialCell | undefined,
  order: number,
  borders: readonly number[] = [],
): readonly ScheduleCell[] {
  const series = polynomial(order);
  const fills: number[] = [];
  let latest = 0;
  return computes.map((isFull, step): ScheduleCell => {
    if (borders.includes(step)) fills.length = 0;
    const read = latest;
    if (isFull || fills.length === 0) {
      fills.unshift(step);
      latest = step;
      return 1;
    }
    if (partial) latest = step;
    const drift = [
      { weight: 1, terms: series(step, fills) },
      { weight: -1, terms: series(read, fills) },
    ];
    const terms = sumOfTerms([{ weight: 1, terms: [{ step: read, weight: 1 }] }, ...drift]).filter(
      ({ weight }) => Math.abs(weight) > ROUNDING,
    );
    const isReuse = terms.length === 1 && terms[0]?.step === read;
    if (!partial) return isReuse ? 0 : cellOf(terms);
    return isReuse ? partial : { ...partial, terms: terms.map(({ step, weight }) => [step, weight]) };
  });
}

/** The rounding error of sums of weights. */
const ROUNDING = 1e-12;
