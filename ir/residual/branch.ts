/** Classifies the branch of a residual add (attention, feed-forward network or both) and finds where it can be cut. */
import { operands } from "../analysis.js";
import { constantOf } from "../constants.js";
import { type BranchKind, LATENT } from "../dit.js";
import { isOp, type Node, type Value } from "../graph.js";
import {
  attended,
  carriedOperand,
  isAttentionCore,
  isDataMovement,
  isElementwise,
  isLinear,
  isNorm,
  isProduct,
  isReduction,
  type Dependence,
} from "../ops.js";
import { isFloatType } from "../types.js";
import { isAffine, isChoice, mixesNeighbours } from "./functions.js";
import { unmoved, unscaled } from "./moves.js";
import { isWithin, type Region } from "./regions.js";

/**
 * The kind of a branch; undefined if it is none of a transformer block. Attention mixes tokens by weights that are computed from the
 * tokens. A feed-forward network has weights on both sides of something that is not linear.
 */
export function kindOf(region: Region, dependsOn: Dependence): BranchKind | undefined {
  const course = courseOf(region, dependsOn);
  const { stage } = course.at(region.operand);
  if (course.cores.length === 0) return stage === "fed" ? "mlp" : undefined;
  if (stage === "fed") return "single";
  return course.cores.some((core) => attendsToItself(core, region, dependsOn)) ? "attn" : "cross_attn";
}

/** How far a value of a branch has come on its way through a feed-forward network. */
const STAGES = ["entry", "weighed", "bent", "fed"] as const;
type Stage = (typeof STAGES)[number];

/** What has happened to a value of a branch: whether attention is on its way, and its stage on the way around it or behind it. */
interface Progress {
  readonly attended: boolean;
  readonly stage: Stage;
}

/** What happens to the values of a branch. */
export interface Course {
  readonly cores: readonly Node[];
  at(value: Value): Progress;
}

const ENTRY: Progress = { attended: false, stage: "entry" };

/** The course of values through a branch. One forward walk. */
export function courseOf(region: Region, dependsOn: Dependence): Course {
  const known = new Map<Node, Progress>();
  const attends = [...region.nodes].some((node) => isAttentionCore(node, dependsOn));
  const at = ({ producer }: Value): Progress => (producer && known.get(producer)) ?? ENTRY;
  const cores: Node[] = [];
  /** Nodes that choose among scores, and what is made of the choice without products. */
  const chosen = new Set<Node>();
  const isChosen = ({ producer }: Value): boolean => producer !== undefined && chosen.has(producer);
  for (const node of region.nodes) {
    const within = operands(node).filter((value) => isWithin(region, value));
    const isCore = isAttentionCore(node, dependsOn);
    if (!isCore && !isLinear(node, dependsOn) && (isChoice(node) || within.some(isChosen))) chosen.add(node);
    // A product with a choice distributes tokens to experts or collects them.
    if (isCore && !within.some(isChosen)) {
      cores.push(node);
      known.set(node, { attended: true, stage: "entry" });
      continue;
    }
    const attended = within.filter((value) => at(value).attended);
    // What the result of attention is multiplied by is a gate.
    const followed = isOp(node, "Mul") && attended.length > 0 ? attended : within;
    const stage = latest(followed.map((value) => at(value).stage));
    known.set(node, { attended: attended.length > 0, stage: afterwards(stage, node) });
  }
  return { cores, at };

  function afterwards(stage: Stage, node: Node): Stage {
    if (isLinear(node, dependsOn)) {
      if (stage === "bent" || stage === "fed") return "fed";
      // Neighbouring tokens that are mixed between two layers make a network of them, but beside attention they are its positions.
      return stage === "weighed" && !attends && mixesNeighbours(node) ? "bent" : "weighed";
    }
    return stage === "weighed" && !isAffine(node, (value) => isWithin(region, value)) ? "bent" : stage;
  }
}

function latest(stages: readonly Stage[]): Stage {
  return STAGES.findLast((stage) => stages.includes(stage)) ?? "entry";
}

/**
 * Whether attention is to the tokens of the branch. Scores that were computed before the branch, from the latent, may be shared by
 * several branches; then the values alone are of the branch.
 */
function attendsToItself(core: Node, region: Region, dependsOn: Dependence): boolean {
  const [left, right] = attended(core);
  if (!isProduct(core)) return isWithin(region, left) || isWithin(region, right);
  return isWithin(region, right) && (isWithin(region, left) || (dependsOn(left) & LATENT) !== 0);
}

/** How many tokens each token attends to in the first attention of a branch, if shapes tell. */
export function spanOf({ cores: [core] }: Course): number | undefined {
  const size = core && (isProduct(core) ? core.outputs[0]?.type?.shape?.at(-1) : attended(core)[0]?.type?.shape?.at(-2));
  return typeof size === "number" ? size : undefined;
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

export function cutPoints(region: Region, course: Course, dependsOn: Dependence): CutPoints {
  let gated = false;
  let normed: Value | undefined;
  let at = region.operand;
  for (;;) {
    const here = unmoved(at);
    // Norms are tried first, as the scale of a norm is no gate. There is no gate before a norm. A constant number scales, and is no gate.
    const beforeNorm = normed ? undefined : throughNorm(here, region, dependsOn);
    const beforeGate = normed || beforeNorm ? undefined : throughGate(here, region, course, dependsOn);
    if (beforeNorm) normed = here;
    if (beforeGate) gated = true;
    const before = beforeNorm ?? beforeGate ?? (unscaled(here) === here ? undefined : unscaled(here));
    if (!before) break;
    at = before;
  }
  // The output of a linear layer is taken before any reshaping; other modules end at `at` itself.
  const output = endsInWeight(unmoved(at), dependsOn) ? earliestFloat(at) : at;
  return { output, normed: normed ?? output, gatedOutput: region.operand, gated };
}

/**
 * The value before a gate. The gate is the other factor: it is not computed from the branch, and is no constant number; or it is computed
 * from the tokens that enter the branch, past attention and the feed-forward network.
 */
function throughGate(value: Value, region: Region, course: Course, dependsOn: Dependence): Value | undefined {
  if (!isOp(value.producer, "Mul") || isRescaling(value.producer)) return undefined;
  const [a, b] = value.producer?.inputs ?? [];
  if (!a || !b) return undefined;
  const isWhole = (factor: Value): boolean => {
    if (!isWithin(region, factor)) return false;
    const { attended, stage } = course.at(factor);
    return course.cores.length > 0 ? attended : stage === "fed";
  };
  const isOfBranch = isWithin(region, a) && isWithin(region, b) ? isWhole : (factor: Value) => isWithin(region, factor);
  if (isOfBranch(a) === isOfBranch(b)) return undefined;
  const [branch, gate] = isOfBranch(a) ? [a, b] : [b, a];
  return dependsOn(gate) !== 0 || (constantOf(gate)?.shape.length ?? 0) > 0 ? branch : undefined;
}

/** The value before a norm with a constant scale and shift, whether the norm is one node or spelled out. */
function throughNorm(value: Value, region: Region, dependsOn: Dependence): Value | undefined {
  let at = value;
  for (const opType of ["Add", "Mul"] as const) {
    const { producer } = at;
    if (!producer || !isOp(producer, opType)) continue;
    const within = producer.inputs.filter((input) => isWithin(region, input));
    if (within.length === 1 && within[0] && producer.inputs.some((input) => dependsOn(input) === 0)) at = unmoved(within[0]);
  }
  const node = at.producer;
  if (!node) return undefined;
  if (isNorm(node)) return node.inputs[0];
  const [a, b] = node.inputs;
  if (!isOp(node, "Mul", "Div") || !a || !b) return undefined;
  const normalised = isStatisticOf(b, a, region) ? a : isOp(node, "Mul") && isStatisticOf(a, b, region) ? b : undefined;
  if (!normalised) return undefined;
  // LayerNorm subtracts the mean first.
  const centred = unmoved(normalised);
  const [minuend, mean] = isOp(centred.producer, "Sub") ? (centred.producer?.inputs ?? []) : [];
  return minuend && mean && isStatisticOf(mean, minuend, region) ? unmoved(minuend) : centred;
}

/** A statistic of a norm takes fewer nodes than this, spelled out and with casts. */
const MOST_OF_STATISTIC = 100;

/** Whether `value` is a statistic of `of`: computed from reductions of it, and from nothing else in the branch. */
function isStatisticOf(value: Value, of: Value, region: Region): boolean {
  const origin = unmoved(of);
  const seen = new Set<Node>();
  const open = [value];
  let reduces = false;
  for (let at = open.pop(); at; at = open.pop()) {
    if (at === of || at === origin || !isWithin(region, at)) continue;
    const node = at.producer;
    if (!node || !(isElementwise(node) || isDataMovement(node) || isReduction(node))) return false;
    if (seen.has(node)) continue;
    seen.add(node);
    if (seen.size === MOST_OF_STATISTIC) return false;
    reduces ||= isReduction(node);
    for (const operand of operands(node)) open.push(operand);
  }
  return reduces;
}

/** The value before any reshaping and rounding; the codes of a quantiser are none that could be forecast. */
function earliestFloat(value: Value): Value {
  let earliest = value;
  for (let at: Value | undefined = value; at; at = at.producer && carriedOperand(at.producer))
    if (at.type === undefined || isFloatType(at.type.elem)) earliest = at;
  return earliest;
}

/** Whether a node scales the integers that a product of codes gives. */
function isRescaling(node: Node | undefined): boolean {
  const isOfCodes = (value: Value | undefined): boolean => isOp(value && unmoved(value).producer, "MatMulInteger", "ConvInteger");
  return isOp(node, "Mul") && (node?.inputs.some(isOfCodes) ?? false);
}

/** Whether a value is the output of a linear layer, with or without a bias, and with the scale of an integer product. */
function endsInWeight(value: Value, dependsOn: Dependence): boolean {
  const open = [value];
  for (let at = open.pop(); at; at = open.pop()) {
    const node = at.producer;
    if (!node) continue;
    if (isLinear(node, dependsOn)) return true;
    const isBias = isOp(node, "Add") && node.inputs.some((input) => dependsOn(input) === 0);
    if (!isBias && !isRescaling(node)) continue;
    for (const input of node.inputs) if (input && dependsOn(input) !== 0) open.push(unmoved(input));
  }
  return false;
}
