/**
 * The float type that the network computes in. Inputs keep their types and the prediction is float, whatever lies between.
 *
 * In a half type run the operators that it is enough for (ir/ops.ts): products, norms in one node, sums, moves of data. In
 * float run
 *   what depends on the time alone: it becomes data first, and is rounded once;
 *   all other operators: squares and what they are summed to leave the range of float16;
 *   what reads a constant that the half type does not hold: a mask of −3·10³⁸, an epsilon of 10⁻⁶;
 *   elementwise nodes that read what such a node made, or that are read by such nodes alone: nothing is narrowed in between;
 *   what CUDA has no kernel for in the half type.
 * Casts stand where a value goes from one to the other. Constants are converted, those in files when they are written.
 */
import { dependence, uses } from "../ir/analysis.js";
import { hasCudaKernel } from "../ir/cuda.js";
import { Builder, elemOf, shapeOf } from "../ir/build.js";
import { type Attribute, constant, type Graph, isOp, makeNode, type Model, type Node, type Value, withGraph } from "../ir/graph.js";
import { isDataMovement, isElementwise, isHalfSafe, isOfOneFloatType, type Dependence } from "../ir/ops.js";
import { type Replacement, rewrite } from "../ir/rewrite.js";
import { convertTensor, holds, type TensorData, tensorOf } from "../ir/tensor.js";
import { ELEMENT_TYPES, type ElementType, type FloatType, isFloatType, sameType } from "../ir/types.js";
import type { Guidance } from "../schedules/index.js";
import type { Pass } from "./pass.js";

export default {
  name: "precision",
  summary: "compute in another float type, where that is enough",
  preserves: "precision",
  run(model, { run: { precision, guidance } }) {
    if (precision === undefined) return model;
    const types = nodeTypes(model, precision, besideTime(model, guidance));
    return withGraph(model, new Retyping(model.graph, types).run());
  },
} satisfies Pass;

/** What a value's numbers depend on beside what the sampler's table sets: 0 if on nothing. */
function besideTime({ graph, dit }: Model, { input }: Guidance): Dependence {
  const others = graph.inputs.filter(({ name }) => name !== dit?.timestep && name !== input);
  return dependence(graph, new Map(others.map((value) => [value, 1])));
}

/** The type that each node computes in. Those that are not in it read and give the types that they did. */
function nodeTypes(model: Model, target: FloatType, dependsOn: Dependence): ReadonlyMap<Node, FloatType> {
  const { graph } = model;
  const types = new Map<Node, FloatType>();
  const isHeld = held(target);
  const narrowed = ({ type }: Value): ElementType | undefined => (isFloatType(type?.elem) ? target : type?.elem);
  /** Results that are not to be narrowed before an elementwise node has read them. */
  const wide = new Set<Value>();
  for (const node of graph.nodes) {
    if (!isOfOneFloatType(node)) continue;
    const isTimed = dependsOn(node.outputs[0]) === 0;
    const isUnsafe = !isTimed && !(isHalfSafe(node) && node.inputs.every((value, i) => isMask(node, i) || isHeld(value)));
    const follows = isElementwiseOrMove(node) && node.inputs.some((value) => value && wide.has(value));
    types.set(node, isTimed || isUnsafe || follows || !hasCudaKernel(node, model.opsets, narrowed) ? "float" : target);
    if (isUnsafe || (follows && isDataMovement(node))) for (const output of node.outputs) wide.add(output);
  }
  const readers = uses(graph);
  const shown = new Set([...graph.outputs, ...graph.marks].map(({ value }) => value));
  const leads = (value: Value): boolean =>
    !shown.has(value) && (readers.get(value)?.every((reader) => types.get(reader) === "float") ?? false);
  for (const node of [...graph.nodes].reverse()) {
    if (types.has(node) && isElementwiseOrMove(node) && node.outputs.every(leads)) types.set(node, "float");
  }
  return types;
}

/** Whether a type holds the numbers of an operand, where they are written down. */
function held(target: FloatType): (value: Value | undefined) => boolean {
  const known = new Map<TensorData, boolean>();
  return (value) => {
    const data = value?.data;
    if (!data || !isFloatType(data.elem)) return true;
    const answer = known.get(data) ?? holds(target, data);
    known.set(data, answer);
    return answer;
  };
}

function isElementwiseOrMove(node: Node): boolean {
  return isElementwise(node) || isDataMovement(node);
}

class Retyping {
  /** What has been made of a value, by its type. */
  private readonly forms = new Map<Value, Map<ElementType, Value>>();
  private readonly inputs: ReadonlySet<Value>;
  private readonly marked: ReadonlySet<Value>;

  constructor(
    private readonly graph: Graph,
    private readonly types: ReadonlyMap<Node, FloatType>,
  ) {
    this.inputs = new Set(graph.inputs);
    this.marked = new Set(graph.marks.map(({ value }) => value));
  }

  run(): Graph {
    const next = rewrite(this.graph, (node, original) => this.visit(node, original));
    const build = new Builder();
    const outputs = next.outputs.map(({ name, value }) => ({ name, value: this.formOf(value, "float", build) }));
    if (outputs.every(({ value }, i) => value === next.outputs[i]?.value)) return next;
    return { ...next, outputs, nodes: [...next.nodes, ...build.nodes] };
  }

  private visit(node: Node, original: Node): Replacement | undefined {
    const build = new Builder();
    const type = this.types.get(original);
    const at = (value: Value, was: Value | undefined): Value => this.formOf(value, type ?? was?.type?.elem, build);
    const inputs = node.inputs.map(
      (value, i) => value && at(isMask(node, i) ? withinRange(value, type, build) : value, original.inputs[i]),
    );
    const captures = node.captures.map(({ name, value }, i) => ({ name, value: at(value, original.captures[i]?.value) }));
    if (type && isOp(node, "Cast", "CastLike")) {
      const value = this.cast(original, inputs[0], type, build);
      if (value) return { nodes: build.nodes, outputs: [value] };
    }
    const outputs = node.outputs.map((value) => ({ ...value, type: typeIn(value, type) }));
    const attributes = attributesIn(node, type);
    const isSame =
      inputs.every((value, i) => value === node.inputs[i]) &&
      captures.every(({ value }, i) => value === node.captures[i]?.value) &&
      outputs.every((output, i) => sameType(output.type, node.outputs[i]?.type));
    if (isSame && attributes === node.attributes) return undefined;
    const copy = makeNode({ ...node, inputs, captures, outputs, attributes });
    return { nodes: [...build.nodes, copy], outputs: copy.outputs };
  }

  /** A value in another float type: a constant converted, else the result of a cast, of which there is one. */
  private formOf(value: Value, elem: ElementType | undefined, build: Builder): Value {
    if (!isFloatType(elem) || !isFloatType(value.type?.elem) || value.type.elem === elem) return value;
    const forms = this.forms.get(value) ?? new Map<ElementType, Value>();
    this.forms.set(value, forms);
    const name = `${value.name}/${elem}`;
    const isConstant = value.data && !this.inputs.has(value);
    const form = forms.get(elem) ?? (isConstant ? constant(name, convertTensor(value.data, elem)) : build.cast(value, elem, name));
    forms.set(elem, form);
    return form;
  }

  /** What a cast to a float type comes to: between floats its operand, which is of the type by now. */
  private cast(original: Node, operand: Value | undefined, type: FloatType, build: Builder): Value | undefined {
    const [output] = original.outputs;
    if (!operand || !output || !isFloatType(output.type?.elem)) return undefined;
    if (elemOf(operand) !== type) return build.cast(operand, type, output.name);
    // A branch stays a value of its own.
    return this.marked.has(output) ? build.op("Identity", [operand], output.name, { elem: type, shape: shapeOf(operand) }) : operand;
  }
}

/** The least finite number of each half type. */
const LOWEST = { float16: -65504, bfloat16: -(2 - 2 ** -7) * 2 ** 127 } as const;

/** What is added to the scores of attention in one node. */
function isMask(node: Node, operand: number): boolean {
  return isOp(node, "Attention") && operand === 3;
}

/** A mask whose numbers stay finite when it is narrowed: where all of a row is masked, infinities would make it no number. */
function withinRange(mask: Value, type: FloatType | undefined, build: Builder): Value {
  if (type === undefined || type === "float" || mask.type?.elem !== "float") return mask;
  const lowest = constant("lowest", tensorOf("float", [], [LOWEST[type]]));
  return build.op("Max", [mask, lowest], `${mask.name}/within`, mask.type);
}

function typeIn({ type }: Value, elem: FloatType | undefined): Value["type"] {
  return type && elem && isFloatType(type.elem) ? { ...type, elem } : type;
}

/** Attention in half precision has its softmax in float. */
function attributesIn(node: Node, type: FloatType | undefined): Node["attributes"] {
  const softmax: Attribute = { kind: "int", value: BigInt(ELEMENT_TYPES.float.code) };
  return type && type !== "float" && isOp(node, "Attention")
    ? new Map([...node.attributes, ["softmax_precision", softmax]])
    : node.attributes;
}
