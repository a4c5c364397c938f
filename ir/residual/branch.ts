/** Classifies the branch of a residual add (attention, feed-forward network or both) and finds where it can be cut. */
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

/** Whether a value belongs to the branch: it is the root, or is computed from it. */
function isOfBranch({ root, region }: ResidualAdd, value: Value | undefined): boolean {
  return value !== undefined && (value === root || (value.producer !== undefined && region.has(value.producer)));
}

/** The kind of the branch; undefined if it is no branch of a transformer block. */
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
 * Whether the branch has a feed-forward network besides attention: a nonlinearity reaches its end without passing through attention.
 * A factor that the output of attention is multiplied by does not count: it is a gate.
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

/** The values at which a branch can be cut, from the inside out. They coincide where there is no norm or no gate. */
export interface CutPoints {
  /** The output of the branch's module, before norm, gate and reshaping. */
  readonly output: Value;
  /** The value after the norm between branch and gate. */
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
    // Norms are tried first, as the scale of a norm is no gate. There is no gate before a norm.
    const beforeNorm = normed ? undefined : throughNorm(here, add, dependsOn);
    const beforeGate = normed || beforeNorm ? undefined : throughGate(here, add, dependsOn);
    if (beforeNorm) normed = here;
    if (beforeGate) gated = true;
    const next = beforeNorm ?? beforeGate;
    if (!next) break;
    at = next;
  }
  // The output of a linear layer is taken before any reshaping; other modules end at `at` itself.
  const end = unmoved(at);
  const output = endsInWeight(end, dependsOn) ? end : at;
  return { output, normed: normed ?? output, gatedOutput: add.operand, gated };
}

/** The value before a gate. The gate is the other factor: it is not computed from the branch, and is no constant number. */
function throughGate(value: Value, add: ResidualAdd, dependsOn: Dependence): Value | undefined {
  if (!isOp(value.producer, "Mul")) return undefined;
  const [a, b] = value.producer?.inputs ?? [];
  if (!a || !b || isOfBranch(add, a) === isOfBranch(add, b)) return undefined;
  const [branch, gate] = isOfBranch(add, a) ? [a, b] : [b, a];
  return dependsOn(gate) !== 0 || (constantOf(gate)?.shape.length ?? 0) > 0 ? branch : undefined;
}

/** The value before a norm with a constant scale and shift, whether the norm is one node or spelled out. */
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
  // LayerNorm subtracts the mean first.
  const centred = unmoved(normalised);
  const [minuend, mean] = isOp(centred.producer, "Sub") ? (centred.producer?.inputs ?? []) : [];
  return minuend && mean && isStatisticOf(mean, minuend, add) ? unmoved(minuend) : centred;
}

/** Whether `value` is a statistic of `of`: computed from reductions of it, and from nothing else in the branch. */
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

/** Whether a value is the output of a linear layer, with or without a bias. */
function endsInWeight(value: Value, dependsOn: Dependence): boolean {
  const node = value.producer;
  if (!node) return false;
  if (isLinear(node, dependsOn)) return true;
  const [summand] = isOp(node, "Add") ? node.inputs.filter((input) => dependsOn(input) !== 0) : [];
  const product = summand && unmoved(summand).producer;
  return product !== undefined && node.inputs.some((input) => dependsOn(input) === 0) && isLinear(product, dependsOn);
}
