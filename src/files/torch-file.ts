/** Reading the tensors of a file that `torch.save` wrote: a ZIP file with a pickle and the bytes of its storages. Nothing in it is run. */
import { Parser } from "pickleparser";
import { z } from "zod";
import { badTorchFile } from "../words/index.js";
import type { TensorData } from "../../ir/tensor.js";
import { byteSize, elementCount, type ElementType } from "../../ir/types.js";
import { readBytes } from "./disk.js";
import { unzipped } from "./zip.js";

/** torch's storage classes. */
const STORAGES: ReadonlyMap<string, ElementType> = new Map([
  ["FloatStorage", "float"],
  ["DoubleStorage", "double"],
  ["HalfStorage", "float16"],
  ["LongStorage", "int64"],
  ["IntStorage", "int32"],
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
 * dots between: `routers.0.prob`. Throws FILE_MISSING, and BAD_TORCH_FILE also where the pickle names a class or function that
 * is not plain data.
 */
export function readTorchFile(file: string): ReadonlyMap<string, TensorData> {
  return parseTorchFile(readBytes(file), file);
}

/** The same from the bytes of a file. Throws BAD_TORCH_FILE. */
export function parseTorchFile(bytes: Uint8Array, file: string): ReadonlyMap<string, TensorData> {
  const refuse = (problem: string): Error => badTorchFile(file, problem);
  const entries = unzipped(bytes, refuse);
  const [pickle] = [...entries.keys()].filter((name) => /^[^/]+\/data\.pkl$/.test(name));
  if (pickle === undefined) throw refuse("it holds no pickle");
  const entry = (name: string): Uint8Array | undefined => entries.get(pickle.replace("data.pkl", name));
  const order = Buffer.from(entry("byteorder") ?? "little").toString();
  if (order !== "little") throw refuse(`its numbers are ${order}-endian`);
  const tensors = new Map<string, TensorData>();
  collect(
    unpickle(entries.get(pickle) ?? new Uint8Array(), (key) => entry(`data/${key}`), refuse),
    [],
    tensors,
  );
  return tensors;
}

/** Collects the tensors below a value. A dictionary that is reachable more than once, as in a cycle, is visited once. */
function collect(value: unknown, path: readonly string[], tensors: Map<string, TensorData>, seen = new Set<unknown>()): void {
  if (value instanceof RebuiltTensor) tensors.set(path.join("."), value.data);
  if (!(value instanceof Map) || seen.has(value)) return;
  seen.add(value);
  for (const [key, inner] of value) collect(inner, [...path, String(key)], tensors, seen);
}

const rebuildSchema = z.tuple([z.instanceof(Storage), z.int().min(0), z.array(z.int().min(0)), z.array(z.int())]);

/** `torch._utils._rebuild_tensor_v2(storage, offset, size, stride, …)`. */
function rebuild(...given: readonly unknown[]): RebuiltTensor {
  const [{ elem, bytes }, offset, shape, strides] = rebuildSchema.parse(given.slice(0, 4));
  const dense = shape.map((_, axis) => elementCount(shape.slice(axis + 1)));
  if (!shape.every((size, axis) => size === 1 || strides[axis] === dense[axis])) throw new Error("a tensor is not contiguous");
  const from = byteSize(elem, offset);
  const content = bytes.slice(from, from + byteSize(elem, elementCount(shape)));
  if (content.length !== byteSize(elem, elementCount(shape))) throw new Error("a tensor is larger than its storage");
  return new RebuiltTensor({ elem, shape, content: { kind: "bytes", bytes: content } });
}

/** The value that a pickle describes: dictionaries as Map, tensors as RebuiltTensor. `storageOf` gives the bytes of a storage. */
function unpickle(pickle: Uint8Array, storageOf: (key: string) => Uint8Array | undefined, refuse: (problem: string) => Error): unknown {
  const storageTypes = new Map<unknown, ElementType>();
  const known: Readonly<Record<string, (...given: unknown[]) => unknown>> = {
    "collections.OrderedDict": () => new Map(),
    "torch._utils._rebuild_tensor_v2": rebuild,
    "torch._utils._rebuild_parameter": (tensor) => tensor,
    // The arguments of a training script; its attributes are put into a plain object.
    "argparse.Namespace": function Namespace() {
      return {};
    },
  };
  const storageSchema = z.tuple([z.literal("storage"), z.unknown(), z.string(), z.string(), z.int()]);
  const parser = new Parser({
    unpicklingTypeOfDictionary: "Map",
    nameResolver: {
      resolve(module, name) {
        const elem = module === "torch" ? STORAGES.get(name) : undefined;
        const found = elem === undefined ? known[`${module}.${name}`] : () => undefined;
        if (!found) throw new Error(`it names ${module}.${name}, which is not read`);
        if (elem !== undefined) storageTypes.set(found, elem);
        return found;
      },
    },
    persistentResolver: {
      resolve(id: unknown) {
        const [, type, key] = storageSchema.parse(id);
        const elem = storageTypes.get(type);
        const bytes = storageOf(key);
        if (elem === undefined || !bytes) throw new Error(`the storage '${key}' is not there`);
        return new Storage(elem, bytes);
      },
    },
  });
  try {
    return parser.parse(pickle);
  } catch (error) {
    if (error instanceof z.ZodError) throw refuse("a tensor in its pickle is not described as torch does");
    throw refuse((error instanceof Error ? error.message : String(error)).replace(/\.$/, ""));
  }
}
