/** Tensors as ONNX Runtime has them, and back. */
import { Tensor } from "onnxruntime-node";
import { runtimeFailed } from "../words/index.js";
import { readTensor, type TensorData, tensorFrom } from "../../ir/tensor.js";
import { type ElementType, RUNTIME_TYPES } from "../../ir/types.js";

const RUNTIME_NAMES = {
  float: "float32",
  double: "float64",
  float16: "float16",
  int64: "int64",
  int32: "int32",
  int16: "int16",
  int8: "int8",
  uint64: "uint64",
  uint32: "uint32",
  uint16: "uint16",
  uint8: "uint8",
  bool: "bool",
} as const satisfies Readonly<Record<(typeof RUNTIME_TYPES)[number], string>>;

export const ELEMENT_OF = new Map<string, ElementType>(RUNTIME_TYPES.map((elem) => [RUNTIME_NAMES[elem], elem]));

/** A view where the memory is aligned, else a copy. */
export function toRuntime(data: TensorData): Tensor {
  const bytes = readTensor(data);
  const { shape } = data;
  const aligned = bytes.byteOffset % 8 === 0 && bytes.buffer instanceof ArrayBuffer ? bytes : Uint8Array.from(bytes);
  const { buffer, byteOffset, byteLength } = aligned;
  switch (data.elem) {
    case "float":
      return new Tensor("float32", new Float32Array(buffer, byteOffset, byteLength / 4), shape);
    case "double":
      return new Tensor("float64", new Float64Array(buffer, byteOffset, byteLength / 8), shape);
    case "float16":
      return new Tensor("float16", new Uint16Array(buffer, byteOffset, byteLength / 2), shape);
    case "int64":
      return new Tensor("int64", new BigInt64Array(buffer, byteOffset, byteLength / 8), shape);
    case "uint64":
      return new Tensor("uint64", new BigUint64Array(buffer, byteOffset, byteLength / 8), shape);
    case "int32":
      return new Tensor("int32", new Int32Array(buffer, byteOffset, byteLength / 4), shape);
    case "uint32":
      return new Tensor("uint32", new Uint32Array(buffer, byteOffset, byteLength / 4), shape);
    case "int16":
      return new Tensor("int16", new Int16Array(buffer, byteOffset, byteLength / 2), shape);
    case "uint16":
      return new Tensor("uint16", new Uint16Array(buffer, byteOffset, byteLength / 2), shape);
    case "int8":
      return new Tensor("int8", new Int8Array(buffer, byteOffset, byteLength), shape);
    case "uint8":
      return new Tensor("uint8", new Uint8Array(buffer, byteOffset, byteLength), shape);
    case "bool":
      return new Tensor("bool", new Uint8Array(buffer, byteOffset, byteLength), shape);
    default:
      throw runtimeFailed(`tensors of type ${data.elem} cannot be handed to it`);
  }
}

export function fromRuntime(tensor: Tensor | undefined): TensorData {
  const elem = tensor && ELEMENT_OF.get(tensor.type);
  if (!tensor || !elem || !ArrayBuffer.isView(tensor.data)) throw runtimeFailed("it returned something that is no tensor of numbers");
  return tensorFrom(elem, tensor.dims, tensor.data);
}
