/**
 * Makes a network of bfloat16 one of float, if it is to compute in float or float16: a device without kernels for bfloat16 could not even
 * run the original. Every value of that type becomes a float; no other value changes, so types need not be known. Constants in files are
 * converted when they are read or written. Otherwise only inputs and outputs become floats, as tensors of bfloat16 can be handed to no runtime
 * from here.
 */
import { type Attribute, constant, type Graph, inputValue, makeNode, makeOp, type Model, type Value, withGraph } from "../ir/graph.js";
import { rewrite } from "../ir/rewrite.js";
import { convertTensor, type TensorData } from "../ir/tensor.js";
import { ELEMENT_TYPES, type FloatType, type TensorType } from "../ir/types.js";
import type { BindContext, Pass } from "./pass.js";

export default {
  name: "widen",
  summary: "make floats of bfloat16 where another type is asked for, and at the ports",
  preserves: "precision",
  run: (model, { precision }) => runnable(model, precision),
} satisfies Pass<BindContext>;

/** A network that was read, as it can be run if it is to compute in this type. */
export function runnable(model: Model, precision: FloatType | undefined): Model {
  return isWidened(model, precision) ? widened(model) : withGraph(model, withFloatPorts(model.graph));
}

/** Whether a network that was read is widened if it is to compute in this type. */
export function isWidened({ graph }: Model, precision: FloatType | undefined): boolean {
  if (precision === undefined || precision === "bfloat16") return false;
  const values = graph.nodes.flatMap(({ inputs, outputs }) => [...inputs, ...outputs]);
  return (
    [...graph.inputs, ...values].some((value) => value?.type?.elem === "bfloat16") ||
    graph.nodes.some(({ attributes }) => Array.from(attributes).some(([name, attribute]) => wideAttribute(name, attribute) !== attribute))
  );
}

/** The network with floats in place of bfloat16. */
function widened(model: Model): Model {
  const { inputs } = model.graph;
  const constants = new Map<Value, Value>();
  const wide = (value: Value): Value => {
    if (!value.data || value.type?.elem !== "bfloat16") return value;
    const made = constants.get(value) ?? constant(value.name, wideData(value.data));
    constants.set(value, made);
    return made;
  };
  const narrow = inputs.filter(({ type }) => type?.elem === "bfloat16");
  const floats = narrow.map((value) => (value.data ? wide(value) : inputValue(value.name, wideType(value.type))));
  const graph = rewrite(
    model.graph,
    (node) => {
      const attributes = new Map(Array.from(node.attributes, ([name, attribute]) => [name, wideAttribute(name, attribute)]));
      const outputs = node.outputs.map((value) => ({ ...value, type: wideType(value.type) }));
      const made = makeNode({ ...node, inputs: node.inputs.map((value) => value && wide(value)), outputs, attributes });
      return { nodes: [made], outputs: made.outputs };
    },
    new Map(narrow.map((value, i) => [value, floats[i] ?? value])),
  );
  return withGraph(model, graph);
}

/** The graph with casts behind inputs of bfloat16 and in front of such outputs. */
function withFloatPorts(graph: Graph): Graph {
  const narrow = graph.inputs.filter(({ type, data }) => type?.elem === "bfloat16" && !data);
  const floats = narrow.map(({ name, type }) => inputValue(name, wideType(type)));
  const casts = floats.map((value, i) => castTo("bfloat16", value, `${value.name}/narrow`, narrow[i]?.type));
  const next = rewrite(graph, () => undefined, new Map(narrow.map((value, i) => [value, casts[i]?.value ?? value])));
  const inputs = graph.inputs.map((value) => floats[narrow.indexOf(value)] ?? value);
  const made = next.outputs.map(({ name, value }) => {
    const isNarrow = value.type?.elem === "bfloat16";
    return { name, ...(isNarrow ? castTo("float", value, `${value.name}/wide`, wideType(value.type)) : { value }) };
  });
  const outer = made.flatMap((port) => ("node" in port ? [port.node] : []));
  if (casts.length === 0 && outer.length === 0) return graph;
  const nodes = [...casts.map(({ node }) => node), ...next.nodes, ...outer];
  return { ...next, inputs, nodes, outputs: made.map(({ name, value }) => ({ name, value })) };
}

function castTo(elem: FloatType, value: Value, name: string, type: TensorType | undefined): ReturnType<typeof makeOp> {
  return makeOp("Cast", [value], { name, type }, { to: { kind: "int", value: BigInt(ELEMENT_TYPES[elem].code) } });
}

function wideType(type: TensorType | undefined): TensorType | undefined {
  return type?.elem === "bfloat16" ? { ...type, elem: "float" } : type;
}

function wideData(data: TensorData): TensorData {
  return data.elem === "bfloat16" ? convertTensor(data, "float") : data;
}

/** The attributes of the standard operators that name an element type. */
const NAMING_TYPES: readonly string[] = ["dtype", "output_dtype", "softmax_precision", "stash_type", "to"];

function wideAttribute(name: string, attribute: Attribute): Attribute {
  switch (attribute.kind) {
    case "int":
      return NAMING_TYPES.includes(name) && Number(attribute.value) === ELEMENT_TYPES.bfloat16.code
        ? { kind: "int", value: BigInt(ELEMENT_TYPES.float.code) }
        : attribute;
    case "tensor":
      return attribute.value.elem === "bfloat16" ? { kind: "tensor", value: wideData(attribute.value) } : attribute;
    default:
      return attribute;
  }
}
