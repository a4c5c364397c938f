/**
 * Which tokens a value carries: tokens of the latent, of a condition (text), or several of them concatenated; and whether their axes have been
 * transposed, as in video models that attend over space and over time in turn.
 */
import { operands } from "../analysis.js";
import { smallConstant } from "../constants.js";
import { CONDITION, LATENT, TIME } from "../dit.js";
import { type Graph, intAttribute, intsAttribute, isOp, type Node, type Value } from "../graph.js";
import { carriedOperand, isElementwise, isLinear, isNorm, isPerToken, type Dependence } from "../ops.js";
import type { ResidualAdd } from "./chains.js";

/** The input that tokens come from: its bit in `Dependence`, LATENT or that of a condition. */
export type TokenSource = number;

/** A run of tokens from one source. */
interface Stretch {
  readonly source: TokenSource;
  /** How many, if that is known. */
  readonly length?: number | undefined;
}

export interface Tokens {
  /** In the order of the sequence, each source once; empty if the value carries no tokens, such as an embedded time. */
  readonly stretches: readonly Stretch[];
  /** Whether the token axes have been transposed an odd number of times. */
  readonly turned: boolean;
}

const NONE: Tokens = { stretches: [], turned: false };

export function sourcesOf({ stretches }: Tokens): readonly TokenSource[] {
  return stretches.map(({ source }) => source);
}

/** The tokens of every value of the graph; a residual sum has those of its stream. One forward walk. */
export function tokensOf(graph: Graph, adds: readonly ResidualAdd[], dependsOn: Dependence): (value: Value) => Tokens {
  const known = new Map<Value, Tokens>();
  const sums = new Map(adds.map((add) => [add.node, add]));
  const embedded = (value: Value | undefined): Tokens => {
    const bits = dependsOn(value);
    if ((bits & LATENT) !== 0) return { stretches: [{ source: LATENT }], turned: false };
    return (bits & CONDITION) !== 0 && (bits & TIME) === 0 ? { stretches: [{ source: conditionBit(bits) }], turned: false } : NONE;
  };
  const at = (value: Value | undefined): Tokens => (value && known.get(value)) ?? embedded(value);
  for (const node of graph.nodes) {
    const add = sums.get(node);
    const results = add ? node.outputs.map(() => at(add.before)) : carried(node, at, dependsOn);
    for (const [i, output] of node.outputs.entries()) known.set(output, results?.[i] ?? embedded(output));
  }
  return at;
}

/** The bit of the first condition that a value depends on. */
function conditionBit(bits: number): TokenSource {
  const own = bits & ~(LATENT | TIME | CONDITION);
  return own === 0 ? CONDITION : own & -own;
}

/** The tokens of a node's outputs, from those of its operands; undefined for a node that mixes tokens or makes new ones. */
function carried(node: Node, at: (value: Value | undefined) => Tokens, dependsOn: Dependence): readonly Tokens[] | undefined {
  const [first, second] = node.inputs;
  const all = (tokens: Tokens): readonly Tokens[] => node.outputs.map(() => tokens);
  if (isOp(node, "Transpose")) return all(transposed(node, at(first)));
  if (carriedOperand(node) || isNorm(node)) return all(at(first));
  if (isLinear(node, dependsOn) && isPerToken(node, dependsOn)) return all({ stretches: at(first).stretches, turned: false });
  // An embedding has the tokens of the ids that it looks up.
  if (isOp(node, "Gather", "GatherND") && dependsOn(first) === 0) return all(at(second));
  if (isOp(node, "Slice", "Split", "Gather")) return parts(node, at(first));
  if (isOp(node, "ScatterND", "ScatterElements")) return all(joined([at(first), at(node.inputs[2])]));
  if (isOp(node, "Concat") && joinsTokens(node)) return all(joined(node.inputs.map((value) => measured(at(value), value))));
  if (!isElementwise(node) && !isOp(node, "Concat", "Expand", "Pad")) return undefined;
  const active = operands(node).filter((value) => dependsOn(value) !== 0);
  const main = active.find((value) => (dependsOn(value) & LATENT) !== 0);
  if (main) return all(at(main));
  // Once it depends on the time, a condition is no longer a sequence of tokens.
  const carrier = active.map(at).find(({ stretches }) => stretches.length > 0);
  return (dependsOn(node.outputs[0]) & (TIME | CONDITION)) === CONDITION && carrier ? all(carrier) : undefined;
}

/** The tokens one after the other. A source that is there already is not counted again. */
function joined(all: readonly Tokens[]): Tokens {
  const stretches = new Map<TokenSource, Stretch>();
  for (const stretch of all.flatMap((tokens) => tokens.stretches))
    if (!stretches.has(stretch.source)) stretches.set(stretch.source, stretch);
  return { stretches: [...stretches.values()], turned: all.some(({ turned }) => turned) };
}

/** Tokens of one source with their number, where the shape of [batch, tokens, channels] tells it. */
function measured(tokens: Tokens, value: Value | undefined): Tokens {
  const [only, ...others] = tokens.stretches;
  const length = value?.type?.shape?.at(-2);
  return only && others.length === 0 && typeof length === "number" ? { ...tokens, stretches: [{ ...only, length }] } : tokens;
}

/** Whether a Concat joins values of [batch, tokens, channels] along the token axis. */
function joinsTokens(node: Node): boolean {
  const rank = node.outputs[0]?.type?.shape?.length;
  const axis = intAttribute(node, "axis", 0);
  if (rank === undefined) return axis === -2 || axis === 0 || axis === 1;
  return rank <= 3 && (axis < 0 ? axis + rank : axis) === rank - 2;
}

/** A transpose that keeps the channels last turns the tokens. */
function transposed(node: Node, tokens: Tokens): Tokens {
  const perm = intsAttribute(node, "perm");
  return perm && perm.at(-1) === perm.length - 1 && perm.some((axis, i) => axis !== i) ? { ...tokens, turned: !tokens.turned } : tokens;
}

/** The tokens of the parts of a value. Joined tokens are told apart by where a part is cut, or as first and last where lengths are not known. */
function parts(node: Node, tokens: Tokens): readonly Tokens[] {
  const whole = node.outputs.map(() => tokens);
  if (tokens.stretches.length < 2) return whole;
  const rank = node.inputs[0]?.type?.shape?.length ?? 3;
  const isCut = (axis: number): boolean => (axis < 0 ? axis + rank : axis) === rank - 2;
  if (isOp(node, "Split")) {
    if (!isCut(intAttribute(node, "axis", 0))) return whole;
    const sizes = intsAttribute(node, "split") ?? smallConstant(node.inputs[1]) ?? node.outputs.map(({ type }) => type?.shape?.at(-2));
    let start: number | undefined = 0;
    return node.outputs.map((_, i) => {
      const [from, size] = [start, sizes[i]];
      start = from !== undefined && typeof size === "number" ? from + size : undefined;
      return within(tokens, from ?? NaN, start ?? NaN);
    });
  }
  if (!isOp(node, "Slice")) return whole;
  const i = (smallConstant(node.inputs[3]) ?? []).findIndex(isCut);
  const [start, end] = [1, 2].map((operand) => smallConstant(node.inputs[operand])?.[i] ?? NaN);
  return [i < 0 ? tokens : within(tokens, start ?? NaN, end ?? NaN)];
}

/** The tokens from `start` to `end`. A negative bound counts from the end. */
function within(tokens: Tokens, start: number, end: number): Tokens {
  const { stretches, turned } = tokens;
  const total = stretches.reduce((sum, { length = NaN }) => sum + length, 0);
  const bound = (at: number): number => Math.min(total, at < 0 ? at + total : at);
  const [from, to] = [bound(start), bound(end)];
  if (Number.isNaN(from) || Number.isNaN(to)) return { stretches: start === 0 ? stretches.slice(0, 1) : stretches.slice(-1), turned };
  let place = 0;
  const held = stretches.flatMap(({ source, length = 0 }): Stretch[] => {
    const [begin, past] = [Math.max(from, place), Math.min(to, place + length)];
    place += length;
    return past > begin ? [{ source, length: past - begin }] : [];
  });
  return { stretches: held, turned };
}

/**
 * Whether any tokens of a value reach the prediction. A network that drops the text tokens at its end does not need the text part of
 * its last block. One backward walk.
 */
export function liveTokens(graph: Graph, at: (value: Value) => Tokens, dependsOn: Dependence): (value: Value) => boolean {
  const live = new Map<Value, Set<TokenSource>>();
  const need = (value: Value, sources: Iterable<TokenSource>): void => {
    const needed = live.get(value) ?? new Set<TokenSource>();
    live.set(value, needed);
    for (const source of sources) needed.add(source);
  };
  for (const { value } of graph.outputs) need(value, sourcesOf(at(value)));
  for (const node of [...graph.nodes].reverse()) {
    const wanted = new Set(node.outputs.flatMap((output) => [...(live.get(output) ?? [])]));
    if (wanted.size === 0) continue;
    const known = new Set(node.outputs.flatMap((output) => sourcesOf(at(output))));
    for (const value of operands(node)) {
      const sources = sourcesOf(at(value));
      // Parts leave sources out; elsewhere one that is missing from the results has been lost sight of.
      const isApart = keepsTokensApart(node, dependsOn) && (isPart(node) || sources.every((source) => known.has(source)));
      need(value, isApart ? sources.filter((source) => wanted.has(source)) : sources);
    }
  }
  return (value) => (live.get(value)?.size ?? 0) > 0;
}

/** Whether each token of a node's results depends on no other token. */
function keepsTokensApart(node: Node, dependsOn: Dependence): boolean {
  if (isOp(node, "Concat")) return joinsTokens(node);
  return isPerToken(node, dependsOn) || carriedOperand(node) !== undefined || isNorm(node) || isPart(node);
}

function isPart(node: Node): boolean {
  return isOp(node, "Slice", "Split");
}
