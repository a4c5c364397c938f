/** What a residual add adds: attention, a feed-forward network or both, and where it can be cut off. */
import { operands } from "../analysis.js";
import { constantOf } from "../constants.js";
import type { BranchKind } from "../dit.js";
import { isOp, type Node, type Value } from "../graph.js";
import {
  attended,
  isActivation,
  isAttentionCore,
  isDataMovement,
  isElementwise,
  isLinear,
  isNorm,
  isProduct,
  isReduction,
  type Dependence,
} from "../ops.js";
import { type ResidualAdd, unmoved } from "./adds.js";

/** Whether a value is computed from the root of an add's branch. */
function isOfBranch({ root, region }: ResidualAdd, value: Value | undefined): boolean {
  return value !== undefined && (value === root || (value.producer !== undefined && region.has(value.producer)));
}

/** What kind of branch it is; nothing if it is none of a transformer's. */
export function kindOf(add: ResidualAdd, dependsOn: Dependence): BranchKind | undefined {
  const nodes = [...add.region];
  const cores = nodes.filter((node) => isAttentionCore(node, dependsOn));
  if (cores.length === 0) {
    const linear = nodes.filter((node) => isLinear(node, dependsOn)).length;
    return linear >= 2 && nodes.some(isActivation) ? "mlp" : undefined;
  }
  if (activationBypasses(add, new Set(cores))) return "single";
  const attendsToItself = (core: Node): boolean => {
    const within = attended(core).filter((value) => isOfBranch(add, value));
    return isProduct(core) ? within.length === 2 : within.length > 0;
  };
  return cores.some(attendsToItself) ? "attn" : "cross_attn";
}

/**
 * Whether a nonlinearity reaches the branch's end without passing through attention: a feed-forward network beside it or behind it.
 * What attention's result is multiplied by is a gate of it, and no network of its own.
 */
function activationBypasses({ operand, region }: ResidualAdd, cores: ReadonlySet<Node>): boolean {
  const behind = new Set(cores);
  const carriesAttention = ({ producer }: Value): boolean => producer !== undefined && behind.has(producer);
  // The region is in the order of its longest paths.
  for (const node of region) if (operands(node).some(carriesAttention)) behind.add(node);
  const seen = new Set<Node>();
  const open = [operand];
  for (let at = open.pop(); at; at = open.pop()) {
    const node = at.producer;
    if (!node || seen.has(node) || cores.has(node) || !region.has(node)) continue;
    if (isActivation(node)) return true;
    seen.add(node);
    const attention = isOp(node, "Mul") ? operands(node).filter(carriesAttention) : [];
    open.push(...(attention.length > 0 ? attention : operands(node)));
  }
  return false;
}

/** The values at which a branch can be cut off, from the inside out. Where there is no norm or no gate, they are the same. */
export interface CutPoints {
  /** What the branch's module gives: before norm, gate and reshaping. */
  readonly output: Value;
  /** Behind the norm between branch and gate. */
  readonly normed: Value;
  /** What is added to the stream. */
  readonly gatedOutput: Value;
  readonly gated: boolean;
}

export function cutPoints(add: ResidualAdd, dependsOn: Dependence): CutPoints {
  let gated = false;
  let normed: Value | undefined;
  let at = add.operand;
  for (;;) {
    const here = unmoved(at);
    // The scale of a norm is no gate, so that norms are looked for first; and no gate stands in front of a norm.
    const beforeNorm = normed ? undefined : throughNorm(here, add, dependsOn);
    const beforeGate = normed || beforeNorm ? undefined : throughGate(here, add, dependsOn);
    if (beforeNorm) normed = here;
    if (beforeGate) gated = true;
    const next = beforeNorm ?? beforeGate;
    if (!next) break;
    at = next;
  }
  // A module that ends in a weight may be reshaped behind it; one that does not ends where it ends.
  const end = unmoved(at);
  const output = endsInWeight(end, dependsOn) ? end : at;
  return { output, normed: normed ?? output, gatedOutput: add.operand, gated };
}

/** The branch's value in front of its gate: the other factor does not come from the branch, and is more than a constant number. */
function throughGate(value: Value, add: ResidualAdd, dependsOn: Dependence): Value | undefined {
  if (!isOp(value.producer, "Mul")) return undefined;
  const [a, b] = value.producer?.inputs ?? [];
  if (!a || !b || isOfBranch(add, a) === isOfBranch(add, b)) return undefined;
  const [branch, gate] = isOfBranch(add, a) ? [a, b] : [b, a];
  return dependsOn(gate) !== 0 || (constantOf(gate)?.shape.length ?? 0) > 0 ? branch : undefined;
}

/** The value in front of a norm, with its constant scale and shift; one node or spelled out. */
function throughNorm(value: Value, add: ResidualAdd, dependsOn: Dependence): Value | undefined {
  let at = value;
  for (const opType of ["Add", "Mul"] as const) {
    const { producer } = at;
    if (!producer || !isOp(producer, opType)) continue;
    const within = producer.inputs.filter((input) => isOfBranch(add, input));
    if (within.length === 1 && within[0] && producer.inputs.some((input) => dependsOn(input) === 0)) at = unmoved(within[0]);
  }
  const node = at.producer;
  if (!node) return undefined;
  if (isNorm(node)) return node.inputs[0];
  const [a, b] = node.inputs;
  if (!isOp(node, "Mul", "Div") || !a || !b) return undefined;
  const normalised = isStatisticOf(b, a, add) ? a : isOp(node, "Mul") && isStatisticOf(a, b, add) ? b : undefined;
  if (!normalised) return undefined;
  // LayerNorm takes the mean away first.
  const centred = unmoved(normalised);
  const [minuend, mean] = isOp(centred.producer, "Sub") ? (centred.producer?.inputs ?? []) : [];
  return minuend && mean && isStatisticOf(mean, minuend, add) ? unmoved(minuend) : centred;
}

/** Whether `value` is a number computed from reductions of `of` and nothing else of the branch. */
function isStatisticOf(value: Value, of: Value, add: ResidualAdd): boolean {
  const origin = unmoved(of);
  const seen = new Set<Node>();
  const open = [value];
  let reduces = false;
  for (let at = open.pop(); at; at = open.pop()) {
    if (at === of || at === origin || !isOfBranch(add, at)) continue;
    const node = at.producer;
    if (!node || !(isElementwise(node) || isDataMovement(node) || isReduction(node))) return false;
    if (seen.has(node)) continue;
    seen.add(node);
    reduces ||= isReduction(node);
    open.push(...operands(node));
  }
  return reduces;
}

/** Whether a value is the product with a weight, with its bias. */
function endsInWeight(value: Value, dependsOn: Dependence): boolean {
  const node = value.producer;
  if (!node) return false;
  if (isLinear(node, dependsOn)) return true;
  const [summand] = isOp(node, "Add") ? node.inputs.filter((input) => dependsOn(input) !== 0) : [];
  const product = summand && unmoved(summand).producer;
  return product !== undefined && node.inputs.some((input) => dependsOn(input) === 0) && isLinear(product, dependsOn);
}
