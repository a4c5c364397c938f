/** What is known of a value without running anything: the payload of an initializer or of a Constant node. */
import { isOp, type Node, type Value } from "./graph.js";
import { type TensorData, tensorFrom, tensorNumbers, tensorOf } from "./tensor.js";

/** The data of a value that the model holds as a constant. */
export function constantOf(value: Value | undefined): TensorData | undefined {
  return value?.data ?? (isOp(value?.producer, "Constant") && value?.producer ? constantData(value.producer) : undefined);
}

/** The numbers of a constant of at most 16 elements, such as axes or slice bounds; undefined for anything larger. */
export function smallConstant(value: Value | undefined): readonly number[] | undefined {
  const data = constantOf(value);
  return data && data.shape.length <= 1 && (data.shape[0] ?? 1) <= 16 && data.elem !== "string" ? tensorNumbers(data) : undefined;
}

/** The payload of a Constant node, in whichever of its attributes it is. */
export function constantData(node: Node): TensorData | undefined {
  for (const attribute of node.attributes.values()) {
    switch (attribute.kind) {
      case "tensor":
        return attribute.value;
      case "int":
        return tensorFrom("int64", [], BigInt64Array.of(attribute.value));
      case "ints":
        return tensorFrom("int64", [attribute.value.length], BigInt64Array.from(attribute.value));
      case "float":
        return tensorOf("float", [], [attribute.value]);
      case "floats":
        return tensorOf("float", [attribute.value.length], attribute.value);
      default:
        return undefined;
    }
  }
  return undefined;
}
