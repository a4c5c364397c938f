/**
 * Partial cells: some tokens of a branch are computed, the others are cached (Token Caching, arXiv 2409.18523; ToCa, 2410.05317; ClusCa, 2509.10312).
 * How many is fixed, so that all shapes stay static.
 */
import { z } from "zod";
import { badCell } from "./diagnostics.js";
import { type Macs, totalMacs } from "../ir/cost.js";
import type { SiteTokens } from "../ir/site-tokens.js";

/**
 * How the tokens are chosen. `mask`: a list in the plan's arrays, `<key>/<step>/tokens`. `stagger`: in turn, those that have waited longest.
 * `cluster`: one of each of as many parts of the picture, or runs of the sequence, another one at each partial step. `change`: in the run, for each latent and each half of the guidance,
 * those of which what comes into the branch has changed most since they were computed: mean |change| over channels.
 */
const CHOICES = ["mask", "stagger", "cluster", "change"] as const;

/** A number of tokens for which the branch is computed; the others are the sum of the terms, or the latest value where there are none. */
export const partialSchema = z.strictObject({
  /** Their share of all tokens. */
  tokens: z.number().gt(0).lt(1),
  by: z.enum(CHOICES),
  /** Keys and values of attention to other tokens of the branch: those of this step (`fresh`, the default), or the same sum of terms (`cached`). */
  kv: z.enum(["fresh", "cached"]).optional(),
  /** Whether the others are moved by what computing changed about the chosen ones: by weights in the plan's arrays, `<key>/<step>/move`. */
  move: z.boolean().optional(),
  terms: z.array(z.tuple([z.number(), z.number()])).min(1).optional(),
}); // prettier-ignore

export type PartialCell = z.infer<typeof partialSchema>;

export function isPartialCell(cell: unknown): cell is PartialCell {
  return typeof cell === "object" && cell !== null && !Array.isArray(cell);
}

/** The tokens that a cached cell computes after all. */
export interface Fresh {
  /** How many there are. */
  readonly size: number;
  /** Their numbers, rising; absent where they are chosen in the run, by change. */
  readonly tokens?: readonly number[] | undefined;
  /** How many there are in all. */
  readonly count: number;
  /** Whether keys and values of the others are cached, if the branch attends to its own tokens. */
  readonly keepsKeys: boolean;
  /** For each of all tokens, how much it moves with the surprise (what was computed minus what was forecast) of each fresh one: [all, fresh]. */
  readonly move?: Float32Array | undefined;
}

/** Arrays of a partial cell in a plan. */
export interface PartialArrays {
  readonly tokens?: readonly number[] | undefined;
  readonly move?: Float32Array | undefined;
}

/** How many of `count` tokens a share is: at least one. */
export function tokenCount(share: number, count: number): number {
  return Math.max(1, Math.min(count, Math.round(share * count)));
}

/** The share of a branch's MACs that a partial cell takes. What moves the tokens that are not computed is in it. */
export function partialShare({ tokens: wanted, kv, move }: PartialCell, tokens: SiteTokens): number {
  const size = tokenCount(wanted, tokens.count);
  return branchShare(size, kv === "cached", tokens) + (move ? tokens.move * size : 0);
}

/** The MACs that a partial cell takes. Products of attention are those of the queries; what moves the tokens that are not computed is linear. */
export function partialMacs(macs: Macs, { size, keepsKeys, move }: Fresh, tokens: SiteTokens): Macs {
  const attention = (macs.attention * size) / tokens.count;
  const moved = move ? tokens.move * size : 0;
  return { attention, linear: totalMacs(macs) * (branchShare(size, keepsKeys, tokens) + moved) - attention };
}

/** The share of its MACs that a branch takes for `size` of its tokens. */
function branchShare(size: number, keepsKeys: boolean, { count, share, shareWithKeys = share }: SiteTokens): number {
  return 1 - (keepsKeys ? shareWithKeys : share) * (1 - size / count);
}

/** The tokens of a branch: how many there are, and how many of them are a row of the picture, if that is known. */
export type TokenGrid = Pick<SiteTokens, "count" | "columns">;

/** Where a cell stands, and among which tokens. */
interface TokenPlace extends TokenGrid {
  readonly key: string;
  readonly step: number;
  readonly turn: number;
}

/**
 * The fresh tokens of a cell, of `count`; `turn` counts the partial cells of the row before it. Throws BAD_CELL where arrays are missing or do
 * not fit.
 */
export function freshOf(cell: PartialCell, { key, step, turn, count, columns }: TokenPlace, arrays: PartialArrays = {}): Fresh {
  const size = tokenCount(cell.tokens, count);
  const bad = (problem: string): Error => badCell(key, step, problem);
  const { by, move } = cell;
  const keepsKeys = cell.kv === "cached";
  if (by === "change" && move)
    throw bad("moves tokens with others that are only chosen in the run, and weights are of tokens that are known");
  if (by === "change") return { size, count, keepsKeys };
  if (by === "mask" && !arrays.tokens) throw bad(`computes tokens by a mask, and the plan has no array '${key}/${step}/tokens'`);
  const tokens = by === "mask" ? (arrays.tokens ?? []) : CHOOSE[by](size, { count, columns }, turn);
  const isRising = tokens.every((token, i) => Number.isInteger(token) && token > (tokens[i - 1] ?? -1) && token < count);
  if (!isRising || tokens.length !== size)
    throw bad(`computes ${size} of ${count} tokens, and its array has no such list of rising numbers from 0 to ${count - 1}`);
  if (!move) return { size, tokens, count, keepsKeys };
  const weights = arrays.move;
  if (weights?.length !== count * size || !weights.every(Number.isFinite))
    throw bad(`moves tokens, and the plan has no array '${key}/${step}/move' of ${count} × ${size} finite numbers`);
  return { size, tokens, count, keepsKeys, move: weights };
}

type Choose = (size: number, grid: TokenGrid, turn: number) => readonly number[];

const CHOOSE: Readonly<Record<Exclude<PartialCell["by"], "mask" | "change">, Choose>> = { stagger: staggered, cluster: representatives };

/** In turn, so that each token is computed once in ⌈count / size⌉ partial steps, and those of one step lie apart. */
function staggered(size: number, { count }: TokenGrid, turn: number): readonly number[] {
  const stride = Math.ceil(count / size);
  const order = Array.from({ length: stride }, (_, phase) => spread(phase, count, stride)).flat();
  return Array.from({ length: size }, (_, i) => order[(turn * size + i) % count] ?? 0).sort((a, b) => a - b);
}

function spread(phase: number, count: number, stride: number): readonly number[] {
  return Array.from({ length: Math.ceil((count - phase) / stride) }, (_, i) => phase + i * stride);
}

/** Of each cluster another token at each turn. */
function representatives(size: number, grid: TokenGrid, turn: number): readonly number[] {
  return clusters(size, grid)
    .map((cluster) => cluster[turn % cluster.length] ?? 0)
    .sort((a, b) => a - b);
}

/**
 * The tokens in `size` clusters, as even as may be: rectangles of the picture, as square as `size` allows; or runs of neighbours where it is not known how
 * the tokens lie, or no such rectangles are there.
 */
export function clusters(size: number, { count, columns = count }: TokenGrid): readonly (readonly number[])[] {
  const rows = count / columns;
  const fits = range(0, size).flatMap((i) => (size % (i + 1) === 0 && i < rows && size / (i + 1) <= columns ? [i + 1] : []));
  const sideways = (down: number): number => Math.abs(Math.log(((rows / down) * size) / down / columns));
  const [first, ...others] = fits;
  if (first === undefined || !Number.isInteger(rows)) return parts(count, size).map(({ from, to }) => range(from, to));
  const down = others.reduce((best, other) => (sideways(other) < sideways(best) ? other : best), first);
  return parts(rows, down).flatMap((high) =>
    parts(columns, size / down).map((wide) =>
      range(high.from, high.to).flatMap((y) => range(wide.from, wide.to).map((x) => y * columns + x)),
    ),
  );
}

/** A length in so many parts, as even as may be. */
function parts(length: number, count: number): readonly { readonly from: number; readonly to: number }[] {
  const bound = (i: number): number => Math.floor((i * length) / count);
  return range(0, count).map((i) => ({ from: bound(i), to: bound(i + 1) }));
}

function range(from: number, to: number): readonly number[] {
  return Array.from({ length: to - from }, (_, i) => from + i);
}
