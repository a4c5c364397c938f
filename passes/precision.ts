/**
 * Makes the network compute in a half type where that is accurate enough. Inputs keep their types, and the prediction is float.
 *
 * Operators that are accurate in half precision (`isHalfSafe`: products, fused norms, sums, data movement) run in the half type.
 * These nodes run in float:
 *   nodes that depend on no input but the time: they are folded into constants, and the result is rounded once;
 *   all other operators: squares, for example, and sums of them can leave the range of float16;
 *   nodes that read a constant which the half type does not hold, such as a mask of −3·10³⁸ or an epsilon of 10⁻⁶;
 *   elementwise nodes after such a node, or with only such readers, so that no value is narrowed between two float nodes;
 *   nodes without a CUDA kernel for the half type.
 * A cast stands wherever a value goes from one type to the other. Constants are converted; those in files are when they are written.
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

/** Whether a value depends on any input besides those that the sampler's table sets (the time and an embedded scale, if known): 0 if not. */
function besideTime({ graph, dit }: Model, { input, atRunTime }: Guidance): Dependence {
  const others = graph.inputs.filter(({ name }) => name !== dit?.timestep && (name !== input || atRunTime === true));
  return dependence(graph, new Map(others.map((value) => [value, 1])));
}

/** The type that each node computes in. A node that is missing keeps the types of its operands and results. */
function nodeTypes(model: Model, target: FloatType, dependsOn: Dependence): ReadonlyMap<Node, FloatType> {
  const { graph } = model;
  const types = new Map<Node, FloatType>();
  const isHeld = held(target);
  const narrowed = ({ type }: Value): ElementType | undefined => (isFloatType(type?.elem) ? target : type?.elem);
  /** Results that an elementwise node should read before they are narrowed. */
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

/** Whether a type holds the numbers of an operand; true unless it is a float constant. */
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
  /** The forms of a value in other types. */
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

  /** A value in another float type: a converted constant, or the result of a cast, which is made once per value and type. */
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

  /** The replacement of a cast to a float type; just its operand if that already has the type. */
  private cast(original: Node, operand: Value | undefined, type: FloatType, build: Builder): Value | undefined {
    const [output] = original.outputs;
    if (!operand || !output || !isFloatType(output.type?.elem)) return undefined;
    if (elemOf(operand) !== type) return build.cast(operand, type, output.name);
    // The value of a branch must not become another value.
    return this.marked.has(output) ? build.op("Identity", [operand], output.name, { elem: type, shape: shapeOf(operand) }) : operand;
  }
}

/** The lowest finite number of each half type. */
const LOWEST = { float16: -65504, bfloat16: -(2 - 2 ** -7) * 2 ** 127 } as const;

/** Whether an operand is the mask of a fused attention. */
function isMask(node: Node, operand: number): boolean {
  return isOp(node, "Attention") && operand === 3;
}

/** Clamps a mask so that it stays finite when it is narrowed: a row of only −∞ would make the softmax NaN. */
function withinRange(mask: Value, type: FloatType | undefined, build: Builder): Value {
  if (type === undefined || type === "float" || mask.type?.elem !== "float") return mask;
  const lowest = constant("lowest", tensorOf("float", [], [LOWEST[type]]));
  return build.op("Max", [mask, lowest], `${mask.name}/within`, mask.type);
}

function typeIn({ type }: Value, elem: FloatType | undefined): Value["type"] {
  return type && elem && isFloatType(type.elem) ? { ...type, elem } : type;
}

/** Attention in half precision computes its softmax in float. */
function attributesIn(node: Node, type: FloatType | undefined): Node["attributes"] {
  const softmax: Attribute = { kind: "int", value: BigInt(ELEMENT_TYPES.float.code) };
  return type && type !== "float" && isOp(node, "Attention")
    ? new Map([...node.attributes, ["softmax_precision", softmax]])
    : node.attributes;
}
