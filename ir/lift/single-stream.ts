/**
 * One residual stream: x ← x + gate · f(x), over and over (DiT, PixArt, Stable Audio, …).
 *
 * The values that every path from the latent to the prediction goes through form a chain (the dominators of the
 * prediction). A residual add is an Add on that chain one of whose operands is the chain's value before it; the other
 * operand is the branch. Adds inside a branch (tanh-GELU, rotary embedding, a norm's epsilon) are bypassed by the stream
 * and so are never on the chain.
 */
import { operands } from "../analysis.js";
import { LATENT, TIME, CONDITION, type BranchKind } from "../dit.js";
import { isOp, type Node, type Value } from "../graph.js";
import { isActivation, isDataMovement } from "../ops.js";
import type { FoundBranch, NearMiss, Recogniser, StepFacts } from "./index.js";

export default {
  name: "single-stream",
  summary: "one residual stream through all blocks",
  recognise(facts) {
    const branches: FoundBranch[] = [];
    const misses: NearMiss[] = [];
    const stream = streamName(facts.latent);
    const shared = sharedScope(facts.model.graph.nodes);
    let block = -1;
    let kinds = new Set<BranchKind>();
    for (const { before, add, other } of residualAdds(facts)) {
      const { value, gated } = throughGate(other, facts);
      const region = regionOf(value, before, facts);
      const kind = kindOf(value, region, facts);
      if (!kind) {
        misses.push({ reason: "A residual add whose other operand is no attention and no feed-forward network", node: add });
        continue;
      }
      // A block begins with attention; it has one branch of each kind at most.
      if (block < 0 || kind === "attn" || kind === "single" || kinds.has(kind)) {
        block++;
        kinds = new Set();
      }
      kinds.add(kind);
      branches.push({ kind, block, stream, gated, value, module: moduleOf(region, facts, shared) });
    }
    return { branches: branches.map((branch) => ({ ...branch, module: belowBlock(branch, branches) })), misses };
  },
} satisfies Recogniser;

interface ResidualAdd {
  readonly before: Value;
  readonly add: Node;
  readonly other: Value;
}

/** In execution order. */
function residualAdds(facts: StepFacts): ResidualAdd[] {
  const adds: ResidualAdd[] = [];
  for (let at: Value | undefined = facts.prediction; at; at = facts.dominator.get(at)) {
    const before = facts.dominator.get(at);
    const add = at.producer;
    if (!before || !add || !isOp(add, "Add")) continue;
    const [a, b] = add.inputs;
    if (!a || !b || !isLatent(a, facts) || !isLatent(b, facts)) continue;
    if (isMerely(before, a)) adds.push({ before, add, other: b });
    else if (isMerely(before, b)) adds.push({ before, add, other: a });
  }
  return adds.reverse();
}

function isLatent(value: Value | undefined, facts: StepFacts): boolean {
  return (facts.dependsOn(value) & LATENT) !== 0;
}

/** Whether `value` is `origin`, reshaped or retyped at most. */
function isMerely(origin: Value, value: Value): boolean {
  let at: Value | undefined = value;
  while (at && at !== origin) at = moved(at);
  return at === origin;
}

/** What a value is a mere reshaping or retyping of, one node back. */
function moved(value: Value): Value | undefined {
  return value.producer && isDataMovement(value.producer) ? value.producer.inputs[0] : undefined;
}

/** The branch's value behind its gate: the product with something that is no constant scalar and does not depend on the latent. */
function throughGate(operand: Value, facts: StepFacts): { readonly value: Value; readonly gated: boolean } {
  let at = operand;
  for (let next = moved(at); next; next = moved(at)) at = next;
  if (isOp(at.producer, "Mul")) {
    const [a, b] = at.producer?.inputs ?? [];
    if (a && b && isLatent(a, facts) !== isLatent(b, facts)) {
      const [branch, gate] = isLatent(a, facts) ? [a, b] : [b, a];
      if ((facts.dependsOn(gate) & (TIME | CONDITION)) !== 0 || (gate.data?.shape.length ?? 0) > 0) return { value: branch, gated: true };
    }
  }
  return { value: operand, gated: false };
}

/** The latent-dependent nodes between the stream's value and the branch's. */
function regionOf(value: Value, before: Value, facts: StepFacts): ReadonlySet<Node> {
  const region = new Set<Node>();
  const open = [value];
  for (let at = open.pop(); at; at = open.pop()) {
    const node = at === before || !isLatent(at, facts) ? undefined : at.producer;
    if (!node || region.has(node)) continue;
    region.add(node);
    open.push(...operands(node));
  }
  return region;
}

function kindOf(value: Value, region: ReadonlySet<Node>, facts: StepFacts): BranchKind | undefined {
  const cores = [...region].filter((node) => isAttentionCore(node, facts));
  if (cores.length === 0) {
    const nodes = [...region];
    const linear = nodes.filter((node) => isLinear(node, facts)).length;
    return linear >= 2 && nodes.some(isActivation) ? "mlp" : undefined;
  }
  if (activationBypasses(value, region, new Set(cores))) return "single";
  return cores.every((node) => attends(node).some((operand) => !isLatent(operand, facts))) ? "cross_attn" : "attn";
}

/** A product of two activations: scores, or scores times values. */
function isAttentionCore(node: Node, facts: StepFacts): boolean {
  if (isOp(node, "Attention") || (node.domain === "com.microsoft" && /Attention$/.test(node.opType))) return true;
  if (!isProduct(node)) return false;
  const [a, b] = node.inputs;
  return facts.dependsOn(a) !== 0 && facts.dependsOn(b) !== 0;
}

/** What an attention core attends to: keys and values, or both operands of a plain product. */
function attends(node: Node): readonly (Value | undefined)[] {
  return isProduct(node) ? node.inputs.slice(0, 2) : node.inputs.slice(1, 3);
}

function isProduct(node: Node): boolean {
  return isOp(node, "MatMul", "Einsum") || (node.domain === "com.microsoft" && node.opType === "FusedMatMul");
}

/** A map of activations by weights. */
function isLinear(node: Node, facts: StepFacts): boolean {
  if (isOp(node, "Conv", "Gemm")) return true;
  return isProduct(node) && node.inputs.length > 1 && node.inputs.slice(0, 2).some((input) => facts.dependsOn(input) === 0);
}

/** Whether a nonlinearity reaches the branch's value without passing through attention: a feed-forward network beside it or behind it. */
function activationBypasses(value: Value, region: ReadonlySet<Node>, cores: ReadonlySet<Node>): boolean {
  const seen = new Set<Node>();
  const open = [value];
  for (let at = open.pop(); at; at = open.pop()) {
    const node = at.producer;
    if (!node || seen.has(node) || cores.has(node) || !region.has(node)) continue;
    if (isActivation(node)) return true;
    seen.add(node);
    open.push(...operands(node));
  }
  return false;
}

/** A latent of rank 3 is a sequence of sounds, of rank 4 a picture, of rank 5 a video. */
function streamName(latent: Value): string {
  const rank = latent.type?.shape?.length ?? 4;
  return rank === 3 ? "audio" : rank === 5 ? "video" : "image";
}

/** The path that all of a region's weights share: the module that computes it. */
function moduleOf(region: ReadonlySet<Node>, facts: StepFacts, shared: number): string | undefined {
  const paths: string[][] = [];
  for (const node of region) if (node.scope !== undefined && isLinear(node, facts)) paths.push(node.scope.split("."));
  const common = commonPrefix(paths).slice(shared);
  return common.length > 0 ? common.join(".") : undefined;
}

/** Path elements that every node of the graph has in front: the wrapper that was exported. */
function sharedScope(nodes: readonly Node[]): number {
  const paths: string[][] = [];
  for (const { scope } of nodes) if (scope) paths.push(scope.split("."));
  return commonPrefix(paths).length;
}

/** The module one level below the block, which is what the branches of a block have in common. */
function belowBlock(branch: FoundBranch, all: readonly FoundBranch[]): string | undefined {
  if (branch.module === undefined) return undefined;
  const path = branch.module.split(".");
  const siblings = all
    .filter(({ block, module }) => block === branch.block && module !== undefined)
    .map(({ module = "" }) => module.split("."));
  if (siblings.length < 2) return branch.module;
  return path.slice(0, commonPrefix(siblings).length + 1).join(".");
}

function commonPrefix(paths: readonly (readonly string[])[]): string[] {
  const [first = [], ...rest] = paths;
  let length = first.length;
  for (const path of rest) {
    let same = 0;
    while (same < length && path[same] === first[same]) same++;
    length = same;
  }
  return first.slice(0, length);
}
