/**
 * Makes a network of bfloat16 one of float, if it is to compute in float or float16: a device without kernels for bfloat16 could not even
 * run the original. Every value of that type becomes a float, inputs and outputs as well; no other value changes, so types need not be known.
 * Constants in files are converted when they are read or written.
 */
import { type Attribute, constant, inputValue, makeNode, type Model, type Value, withGraph } from "../ir/graph.js";
import { rewrite } from "../ir/rewrite.js";
import { convertTensor, type TensorData } from "../ir/tensor.js";
import { ELEMENT_TYPES, type FloatType, type TensorType } from "../ir/types.js";
import type { BindContext, Pass } from "./pass.js";

export default {
  name: "widen",
  summary: "make floats of bfloat16, if another type is asked for",
  preserves: "precision",
  run: (model, { precision }) => (isWidened(model, precision) ? widened(model) : model),
} satisfies Pass<BindContext>;

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
export function widened(model: Model): Model {
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
