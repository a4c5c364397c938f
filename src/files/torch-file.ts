/** Reading the tensors of a file that `torch.save` wrote: a ZIP file with a pickle and the bytes of its storages. Nothing in it is run. */
import { z } from "zod";
import { badTorchFile } from "../words/index.js";
import { CompilerError } from "../../ir/diagnostics.js";
import { ARRAY_BYTES, MAX_RANK, PICKLE_BYTES, TENSOR_NAME_LENGTH } from "../../ir/limits.js";
import { readFile } from "../../ir/open-file.js";
import type { TensorData } from "../../ir/tensor.js";
import { byteSize, elementCount, type ElementType } from "../../ir/types.js";
import { PickledName, unpickle } from "./pickle.js";
import { unzipped } from "./zip.js";

/** torch's storage classes. */
const STORAGES: ReadonlyMap<string, ElementType> = new Map([
  ["torch.FloatStorage", "float"],
  ["torch.DoubleStorage", "double"],
  ["torch.HalfStorage", "float16"],
  ["torch.LongStorage", "int64"],
  ["torch.IntStorage", "int32"],
]);

/** The bytes that a pickled tensor is a view of. */
class Storage {
  constructor(
    readonly elem: ElementType,
    readonly bytes: Uint8Array,
  ) {}
}

/** A pickled tensor. */
class RebuiltTensor {
  constructor(readonly data: TensorData) {}
}

/**
 * The tensors in a file that `torch.save` has written since torch 1.6, by the keys of the dictionaries that lead to them with
 * dots between: `routers.0.prob`. Throws FILE_MISSING, NOT_A_FILE, FILE_TOO_LARGE, and BAD_TORCH_FILE also where the pickle names a class
 * or function that is not plain data.
 */
export function readTorchFile(file: string): ReadonlyMap<string, TensorData> {
  return parseTorchFile(readFile(file, ARRAY_BYTES), file);
}

/** The same from the bytes of a file. Throws BAD_TORCH_FILE. */
export function parseTorchFile(bytes: Uint8Array, file: string): ReadonlyMap<string, TensorData> {
  const refuse = (problem: string): Error => badTorchFile(file, problem);
  const entries = unzipped(bytes, refuse);
  const [pickle] = [...entries.keys()].filter((name) => /^[^/]+\/data\.pkl$/.test(name));
  if (pickle === undefined) throw refuse("it holds no pickle");
  const entry = (name: string): Uint8Array | undefined => entries.get(pickle.replace("data.pkl", name))?.();
  const order = Buffer.from(entry("byteorder") ?? "little").toString("latin1");
  if (order !== "little") throw refuse("its numbers are not little-endian");
  const tensors = new Map<string, TensorData>();
  try {
    const content = entry("data.pkl") ?? new Uint8Array();
    if (content.length > PICKLE_BYTES) throw new Error(`its pickle has ${content.length} bytes, and ${PICKLE_BYTES} are read at most`);
    collect(unpickle(content, torchObjects(entry)), undefined, tensors);
  } catch (error) {
    if (error instanceof z.ZodError) throw refuse("a tensor in its pickle is not described as torch does");
    throw error instanceof CompilerError ? error : refuse(error instanceof Error ? error.message : String(error));
  }
  return tensors;
}

/**
 * Collects the tensors below a value, which `name` leads to. A dictionary that is reachable more than once, as in a cycle, is visited once;
 * what stands in lists or under keys other than words and numbers is not found.
 */
function collect(value: unknown, name: string | undefined, tensors: Map<string, TensorData>, seen = new Set<unknown>()): void {
  if (value instanceof RebuiltTensor) tensors.set(name ?? "", value.data);
  if (!(value instanceof Map) || seen.has(value)) return;
  seen.add(value);
  for (const [key, inner] of value) {
    if (typeof key !== "string" && typeof key !== "number") continue;
    const below = name === undefined ? String(key) : `${name}.${key}`;
    if (below.length > TENSOR_NAME_LENGTH) throw new Error(`keys that lead to a tensor have more than ${TENSOR_NAME_LENGTH} letters`);
    collect(inner, below, tensors, seen);
  }
}

const isSizes = (value: unknown): boolean => Array.isArray(value) && value.length <= MAX_RANK;
const sizes = z.custom<unknown>(isSizes).pipe(z.array(z.int()));
const rebuildSchema = z.tuple([z.instanceof(Storage), z.int().min(0), sizes, sizes]);

/** `torch._utils._rebuild_tensor_v2(storage, offset, size, stride, …)`: a view of the storage, as many tensors may have one. */
function rebuild(given: readonly unknown[]): RebuiltTensor {
  const [{ elem, bytes }, offset, shape, strides] = rebuildSchema.parse(given.slice(0, 4));
  const dense = shape.map((_, axis) => elementCount(shape.slice(axis + 1)));
  if (!shape.every((size, axis) => size === 1 || strides[axis] === dense[axis])) throw new Error("a tensor is not contiguous");
  const from = byteSize(elem, offset);
  const content = bytes.subarray(from, from + byteSize(elem, elementCount(shape)));
  if (shape.some((size) => size < 0) || content.length !== byteSize(elem, elementCount(shape)))
    throw new Error("a tensor is larger than its storage");
  return new RebuiltTensor({ elem, shape, content: { kind: "bytes", bytes: content } });
}

const storageSchema = z.tuple([z.literal("storage"), z.instanceof(PickledName), z.string(), z.string(), z.int()]);

/** What a torch file's pickle makes. `entry` gives the bytes of a part of the file. */
function torchObjects(entry: (name: string) => Uint8Array | undefined): Parameters<typeof unpickle>[1] {
  const known = new Map<string, (given: readonly unknown[]) => unknown>([
    ["collections.OrderedDict", () => new Map()],
    ["torch._utils._rebuild_tensor_v2", rebuild],
    ["torch._utils._rebuild_parameter", ([tensor]) => tensor],
    // The arguments of a training script.
    ["argparse.Namespace", () => undefined],
  ]);
  const storages = new Map<string, Uint8Array>();
  return {
    call(name, given) {
      const make = known.get(name);
      if (!make) throw new Error(`it names ${name}, which is not read`);
      return make(given);
    },
    persistent(id) {
      const [, { name }, key] = storageSchema.parse(id);
      const elem = STORAGES.get(name);
      const bytes = storages.get(key) ?? entry(`data/${key}`);
      if (elem === undefined || !bytes) throw new Error(`the storage '${key}' is not there`);
      storages.set(key, bytes);
      return new Storage(elem, bytes);
    },
  };
}
