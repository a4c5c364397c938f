/** Compute cost: the multiply-accumulate operations of nodes, of branches and of whole graphs. Shapes must be known. */
import { dependence, operands, sourcesWithin } from "./analysis.js";
import { constantOf, smallConstant } from "./constants.js";
import { LATENT } from "./dit.js";
import { equationOf } from "./equation.js";
import {
  ditView,
  type Graph,
  intAttribute,
  intsAttribute,
  isOp,
  isRuntimeOp,
  type Mark,
  type Model,
  type Node,
  type Value,
} from "./graph.js";
import { type Attention, attentionOf, type Dependence, isLinear, isShapeOnly, type Product, productOf } from "./ops.js";
import { tensorNumbers } from "./tensor.js";
import { elementCount, staticShape } from "./types.js";

/** Multiply-accumulate operations: `linear` with a weight (Gemm, MatMul, Conv), `attention` between activations. */
export interface Macs {
  readonly linear: number;
  readonly attention: number;
}

export const NO_MACS: Macs = { linear: 0, attention: 0 };

export function addMacs(a: Macs, b: Macs): Macs {
  return { linear: a.linear + b.linear, attention: a.attention + b.attention };
}

export function scaleMacs({ linear, attention }: Macs, factor: number): Macs {
  return { linear: linear * factor, attention: attention * factor };
}

export function totalMacs({ linear, attention }: Macs): number {
  return linear + attention;
}

/**
 * MACs of a graph. An operand that depends on no input is a weight. The body of a Loop counts once per iteration where the number of
 * iterations is constant, else once. An If counts the side that it takes, or the more expensive side where that is not known.
 */
export function graphMacs(graph: Graph): Macs {
  return macsOf(graph, new Map(graph.inputs.map((input) => [input, 1])), ONCE);
}

/** The executions of a graph. Each maps the iteration counters of the loops around the graph to their numbers. */
type Times = readonly ReadonlyMap<Value, number>[];

const ONCE: Times = [new Map()];

/** The MACs of all these executions together. */
function macsOf(graph: Graph, sources: ReadonlyMap<Value, number>, times: Times): Macs {
  const dependsOn = dependence(graph, sources);
  return graph.nodes.reduce((sum, node) => addMacs(sum, macsAt(node, dependsOn, times)), NO_MACS);
}

function macsAt(node: Node, dependsOn: Dependence, times: Times): Macs {
  const within = (name: string, at: Times): Macs => {
    const attribute = node.attributes.get(name);
    if (attribute?.kind !== "graph" || at.length === 0) return NO_MACS;
    return macsOf(attribute.value, sourcesWithin(node, attribute.value, dependsOn), at);
  };
  if (isOp(node, "Loop")) return within("body", iterations(node, times));
  if (!isOp(node, "If")) return scaleMacs(nodeMacs(node, dependsOn), times.length);
  const decides = decision(node.inputs[0]);
  const [taken, left] = [true, false].map((side) => times.filter((time) => decides(time) === side));
  if (taken && left && taken.length + left.length === times.length)
    return addMacs(within("then_branch", taken), within("else_branch", left));
  const [one, other] = [within("then_branch", times), within("else_branch", times)];
  return totalMacs(one) < totalMacs(other) ? other : one;
}

/**
 * The executions of a Loop's body: one per iteration,
 * or those of the Loop itself where the number of iterations is not constant or a condition may end it.
 */
function iterations(node: Node, times: Times): Times {
  const body = node.attributes.get("body");
  const count = smallConstant(node.inputs[0])?.[0];
  if (body?.kind !== "graph" || count === undefined) return times;
  const { inputs, outputs } = body.value;
  const [number, goesOn] = inputs;
  if (!number || outputs[0]?.value !== goesOn) return times;
  return times.flatMap((time) => Array.from({ length: count }, (_, i) => new Map(time).set(number, i)));
}

/** Whether a condition holds in an execution. It is known if it is a constant, or read from a constant table by an iteration counter. */
function decision(condition: Value | undefined): (time: ReadonlyMap<Value, number>) => boolean | undefined {
  const numbersOf = (value: Value | undefined): readonly number[] | undefined => {
    const data = constantOf(value);
    return data && tensorNumbers(data);
  };
  const known = numbersOf(condition)?.[0];
  if (known !== undefined) return () => known !== 0;
  const gather = condition?.producer;
  const [table, number] = isOp(gather, "Gather") ? (gather?.inputs ?? []) : [];
  const rows = table && table.type?.shape?.length === 1 ? numbersOf(table) : undefined;
  return (time) => {
    const row = number && rows?.[time.get(number) ?? -1];
    return row === undefined ? undefined : row !== 0;
  };
}

/** The MACs of a node that is executed once. An operand that depends on nothing is a weight. */
export function nodeCost(node: Node, dependsOn: Dependence): Macs {
  return macsAt(node, dependsOn, ONCE);
}

/** What one step costs, and how much of it each branch saves when it is not computed. */
export interface StepCost {
  readonly total: Macs;
  /** The MACs that do not depend on the latent: lowering moves them in front of the steps. */
  readonly hoisted: Macs;
  /** By site. */
  readonly branches: ReadonlyMap<string, Macs>;
}

/**
 * A node belongs to a branch if it depends on the latent and every path from it to the prediction goes through the branch's
 * value. A node that only several branches together need (the joint attention of two streams) is saved when all of them are cached;
 * its cost is divided between them by their size. What does not depend on the latent is hoisted out of the steps, so no branch
 * saves it.
 */
export function stepCost(model: Model): StepCost {
  const { graph } = model;
  const { latent } = ditView(model);
  const dependsOn = dependence(graph, new Map(graph.inputs.map((input) => [input, input.name === latent ? LATENT : 2 * LATENT])));
  const owners = branchOwners(graph);
  const sizes = new Map(graph.marks.map(({ site, value }) => [site, elementCount(staticShape(value.type) ?? [])]));
  const branches = new Map<string, Macs>(graph.marks.map(({ site }) => [site, NO_MACS]));
  let total = NO_MACS;
  let hoisted = NO_MACS;
  for (const node of graph.nodes) {
    const cost = nodeCost(node, dependsOn);
    if (totalMacs(cost) === 0) continue;
    total = addMacs(total, cost);
    const changes = (dependsOn(node.outputs[0]) & LATENT) !== 0;
    if (!changes) hoisted = addMacs(hoisted, cost);
    const sites = changes ? Array.from(owners.get(node) ?? [], ({ site }) => site) : [];
    const whole = sites.reduce((sum, site) => sum + (sizes.get(site) ?? 0), 0);
    for (const site of sites) branches.set(site, addMacs(branches.get(site) ?? NO_MACS, scaleMacs(cost, (sizes.get(site) ?? 0) / whole)));
  }
  return { total, hoisted, branches };
}

/** The MACs of a step that are computed from results of these nodes, and that no branch saves. */
export function unsavedBehind({ graph }: Model, nodes: readonly Node[]): Macs {
  const dependsOn = dependence(graph, new Map(graph.inputs.map((input) => [input, 1])));
  const follows = dependence(graph, new Map(nodes.flatMap(({ outputs }) => outputs.map((output) => [output, 1] as const))));
  const owners = branchOwners(graph);
  return graph.nodes
    .filter((node) => !owners.has(node) && follows(node.outputs[0]) !== 0)
    .reduce((sum, node) => addMacs(sum, nodeCost(node, dependsOn)), NO_MACS);
}

/**
 * For every node from which each path to an output passes a marked value:
 * the marks of the first such value on each path. One backward walk.
 */
export function branchOwners(graph: Graph): ReadonlyMap<Node, ReadonlySet<Mark>> {
  const trunk = "trunk" as const;
  const owners = new Map<Value, ReadonlySet<Mark> | typeof trunk>();
  /** The sets of values with several readers. They grow with each. */
  const joined = new Map<Value, Set<Mark>>();
  const marked = new Map(graph.marks.map((mark) => [mark.value, new Set([mark])]));
  for (const { value } of graph.outputs) owners.set(value, trunk);
  const found = new Map<Node, ReadonlySet<Mark>>();
  for (const node of [...graph.nodes].reverse()) {
    const own = node.outputs.flatMap((output) => marked.get(output) ?? owners.get(output) ?? []);
    const sets = own.filter((owner) => owner !== trunk);
    const isTrunk = sets.length < own.length;
    const [first, ...others] = sets;
    const marks = first && others.length > 0 ? new Set(sets.flatMap((set) => [...set])) : first;
    // A node without readers costs nothing that matters.
    if (!isTrunk && !marks) continue;
    if (!isTrunk && marks) found.set(node, marks);
    for (const value of isShapeOnly(node) ? [] : operands(node)) {
      const known = owners.get(value);
      if (isTrunk || !marks || known === trunk) owners.set(value, trunk);
      else if (!known) owners.set(value, marks);
      else {
        const all = joined.get(value) ?? new Set(known);
        for (const mark of marks) all.add(mark);
        joined.set(value, all);
        owners.set(value, all);
      }
    }
  }
  return found;
}

function nodeMacs(node: Node, dependsOn: Dependence): Macs {
  const [product, attention] = [productOf(node), attentionOf(node)];
  const left = staticShape(node.inputs[product?.left ?? 0]?.type);
  const out = staticShape(node.outputs[0]?.type);
  if (!left || !out) return NO_MACS;
  if (attention) return attentionMacs(node, attention, left, out);
  if (!product) return NO_MACS;
  const total = MACS_OF_PRODUCTS[product.form]({ node, product, left, out });
  return isLinear(node, dependsOn) ? { linear: total, attention: 0 } : { linear: 0, attention: total };
}

/** A product, and the shapes of its left operand and of its result. */
interface ProductShapes {
  readonly node: Node;
  readonly product: Product;
  readonly left: readonly number[];
  readonly out: readonly number[];
}

const MACS_OF_PRODUCTS: Readonly<Record<Product["form"], (shapes: ProductShapes) => number>> = {
  // The right operand may be packed, so the length of a sum is read off the left one.
  rows: ({ node, left, out }) => elementCount(out) * (left.at(innerAxis(node)) ?? 1),
  kernel: ({ node, product, out }) => elementCount(out) * elementCount(sizesOf(node.inputs[product.right]).slice(1)),
  spread: ({ node, product, left }) => elementCount(left) * elementCount(sizesOf(node.inputs[product.right]).slice(1)),
  // One loop over all axes that the equation names.
  equation: ({ node }) => elementCount([...(equationOf(node)?.sizes.values() ?? [0])]),
  // [steps, rows, channels]
  recurrent: ({ node, product, left }) => elementCount(left.slice(0, 2)) * sumOf(weightsOf(node, product)),
  // Each token goes to the best k of the experts, which are the first axis of the weights.
  experts: ({ node, product, left }) => {
    const [first = 1] = sizesOf(node.inputs[product.right]);
    return (elementCount(left.slice(0, -1)) * intAttribute(node, "k", 1) * sumOf(weightsOf(node, product))) / first;
  },
};

/** The axis of the left operand that a product of rows sums over. A transposed one may have its rows in front of the batch. */
function innerAxis(node: Node): number {
  if (intAttribute(node, "transA", 0) === 0) return -1;
  return intAttribute(node, "transBatchA", 0) === 0 ? -2 : 0;
}

/** How many weights the layers in a node have; several may be packed in a byte. */
function weightsOf(node: Node, { layers = [] }: Product): readonly number[] {
  const perByte = 8 / intAttribute(node, "expert_weight_bits", isRuntimeOp(node, "QMoE") ? 4 : 8);
  return layers.map((place) => {
    const type = node.inputs[place]?.type;
    return type ? elementCount(staticShape(type) ?? []) * (type.elem === "uint8" ? perByte : 1) : 0;
  });
}

function sumOf(numbers: readonly number[]): number {
  return numbers.reduce((sum, number) => sum + number, 0);
}

function sizesOf(value: Value | undefined): readonly number[] {
  return staticShape(value?.type) ?? [];
}

/**
 * Each element of the query is multiplied with every key, and each element of the result sums over as many values: no pair of a query
 * and a key is left out for a mask. A state of keys times values is updated and read once for each token.
 */
function attentionMacs(node: Node, attention: Attention, first: readonly number[], out: readonly number[]): Macs {
  const { projections = [], offsets, isRecurrent } = attention;
  const [keys, values] = [attention.keys, attention.values].map((place) => (place === undefined ? undefined : node.inputs[place]));
  const [rows, result] = [elementCount(first.slice(0, -1)), elementCount(out)];
  const linear = rows * sumOf(projections.map((place) => elementCount(sizesOf(node.inputs[place]))));
  const [projected] = intsAttribute(node, "qkv_hidden_sizes") ?? [];
  if (isRecurrent) {
    const heads = intAttribute(node, "kv_num_heads", 1);
    const size = (sizesOf(values).at(-1) ?? 1) / heads;
    return { linear, attention: size * (elementCount(first) + elementCount(sizesOf(keys))) };
  }
  const query = projected === undefined ? (keys ? elementCount(first) : result) : rows * projected;
  const length = offsets === undefined ? lengthOf(keys ? sizesOf(keys) : first) : sizesOf(node.inputs[offsets]).at(-1);
  return { linear, attention: (length ?? 1) * (query + result) };
}

/** The number of keys: the second to last axis, or the second one where keys and values are packed in one tensor. */
function lengthOf(keys: readonly number[]): number | undefined {
  return keys.length > 4 ? keys[1] : keys.at(-2);
}
