/**
 * Which tokens a value carries: tokens of the latent, of a condition (text), or both concatenated; and whether their axes have been
 * transposed, as in video models that attend over space and over time in turn.
 */
import { operands } from "../analysis.js";
import { smallConstant } from "../constants.js";
import { CONDITION, LATENT, TIME } from "../dit.js";
import { type Graph, intAttribute, intsAttribute, isOp, type Node, type Value } from "../graph.js";
import { isDataMovement, isElementwise, isLinear, isNorm, type Dependence } from "../ops.js";
import type { ResidualAdd } from "./adds.js";

/** Where tokens come from. */
export type TokenSource = "latent" | "condition";

export interface Tokens {
  /** The sources in the order of the sequence; empty if the value carries no tokens, such as an embedded time. */
  readonly sources: readonly TokenSource[];
  /** Whether the token axes have been transposed an odd number of times. */
  readonly turned: boolean;
}

const NONE: Tokens = { sources: [], turned: false };

/** The tokens of every value of the graph; a residual sum has those of its stream. One forward walk. */
export function tokensOf(graph: Graph, adds: readonly ResidualAdd[], dependsOn: Dependence): (value: Value) => Tokens {
  const known = new Map<Value, Tokens>();
  const sums = new Map(adds.map((add) => [add.node, add]));
  const embedded = (value: Value | undefined): Tokens => {
    const bits = dependsOn(value);
    if ((bits & LATENT) !== 0) return { sources: ["latent"], turned: false };
    return (bits & CONDITION) !== 0 && (bits & TIME) === 0 ? { sources: ["condition"], turned: false } : NONE;
  };
  const at = (value: Value | undefined): Tokens => (value && known.get(value)) ?? embedded(value);
  for (const node of graph.nodes) {
    const add = sums.get(node);
    const results = add ? node.outputs.map(() => at(add.before)) : carried(node, at, dependsOn);
    for (const [i, output] of node.outputs.entries()) known.set(output, results?.[i] ?? embedded(output));
  }
  return at;
}

/** The tokens of a node's outputs, from those of its operands; undefined for a node that mixes tokens or makes new ones. */
function carried(node: Node, at: (value: Value | undefined) => Tokens, dependsOn: Dependence): readonly Tokens[] | undefined {
  const [first] = node.inputs;
  const all = (tokens: Tokens): readonly Tokens[] => node.outputs.map(() => tokens);
  if (isOp(node, "Transpose")) return all(transposed(node, at(first)));
  if (isDataMovement(node) || isNorm(node)) return all(at(first));
  if (isTokenwiseLinear(node, dependsOn)) return all({ sources: at(first).sources, turned: false });
  if (isOp(node, "Slice", "Split", "Gather")) return parts(node, at(first));
  if (isOp(node, "ScatterND", "ScatterElements")) return all(joined([at(first), at(node.inputs[2])]));
  if (isOp(node, "Concat") && joinsTokens(node)) return all(joined(node.inputs.map(at)));
  if (!isElementwise(node) && !isOp(node, "Concat", "Expand", "Pad")) return undefined;
  const active = operands(node).filter((value) => dependsOn(value) !== 0);
  const main = active.find((value) => (dependsOn(value) & LATENT) !== 0);
  if (main) return all(at(main));
  // Once it depends on the time, a condition is no longer a sequence of tokens.
  return dependsOn(node.outputs[0]) === CONDITION
    ? all(
        joined(
          active
            .map(at)
            .filter(({ sources }) => sources.length > 0)
            .slice(0, 1),
        ),
      )
    : undefined;
}

function joined(all: readonly Tokens[]): Tokens {
  const sources = all.flatMap((tokens) => tokens.sources);
  return { sources: sources.filter((source, i) => source !== sources[i - 1]), turned: all.some(({ turned }) => turned) };
}

/** Whether a linear layer is applied to the channels of each token of [batch, tokens, channels]. */
function isTokenwiseLinear(node: Node, dependsOn: Dependence): boolean {
  return isLinear(node, dependsOn) && !isOp(node, "Conv", "Einsum") && dependsOn(node.inputs[1]) === 0;
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

/**
 * The tokens of the parts of a value. A part of joined tokens has those of the first source or of the last;
 * other parts keep the tokens of the whole.
 */
function parts(node: Node, tokens: Tokens): readonly Tokens[] {
  const { sources, turned } = tokens;
  const [first, last] = [sources[0], sources.at(-1)];
  const rank = node.inputs[0]?.type?.shape?.length ?? 3;
  const cut = (axis: number): boolean => (axis < 0 ? axis + rank : axis) === rank - 2;
  if (!first || !last || sources.length === 1) return node.outputs.map(() => tokens);
  if (isOp(node, "Split"))
    return node.outputs.map((_, i) => (cut(intAttribute(node, "axis", 0)) ? { sources: [i === 0 ? first : last], turned } : tokens));
  if (!isOp(node, "Slice")) return node.outputs.map(() => tokens);
  const axes = smallConstant(node.inputs[3]) ?? [];
  const starts = smallConstant(node.inputs[1]);
  const i = axes.findIndex(cut);
  return [i < 0 ? tokens : { sources: [starts?.[i] === 0 ? first : last], turned }];
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
  for (const { value } of graph.outputs) need(value, at(value).sources);
  for (const node of [...graph.nodes].reverse()) {
    const wanted = new Set(node.outputs.flatMap((output) => [...(live.get(output) ?? [])]));
    if (wanted.size === 0) continue;
    for (const value of operands(node)) {
      const { sources } = at(value);
      need(value, keepsTokensApart(node, dependsOn) ? sources.filter((source) => wanted.has(source)) : sources);
    }
  }
  return (value) => (live.get(value)?.size ?? 0) > 0;
}

/** Whether each token of a node's results depends on no other token. */
function keepsTokensApart(node: Node, dependsOn: Dependence): boolean {
  if (isOp(node, "Concat")) return joinsTokens(node);
  return isElementwise(node) || isDataMovement(node) || isNorm(node) || isOp(node, "Slice", "Split") || isTokenwiseLinear(node, dependsOn);
}
