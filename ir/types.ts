/** ONNX element types, shapes and byte sizes (onnx.proto: TensorProto.DataType). */

/** Every element type: its number in the file format and its width in bits (0: no fixed width). */
export const ELEMENT_TYPES = {
  float: { code: 1, bits: 32 },
  uint8: { code: 2, bits: 8 },
  int8: { code: 3, bits: 8 },
  uint16: { code: 4, bits: 16 },
  int16: { code: 5, bits: 16 },
  int32: { code: 6, bits: 32 },
  int64: { code: 7, bits: 64 },
  string: { code: 8, bits: 0 },
  bool: { code: 9, bits: 8 },
  float16: { code: 10, bits: 16 },
  double: { code: 11, bits: 64 },
  uint32: { code: 12, bits: 32 },
  uint64: { code: 13, bits: 64 },
  complex64: { code: 14, bits: 64 },
  complex128: { code: 15, bits: 128 },
  bfloat16: { code: 16, bits: 16 },
  float8e4m3fn: { code: 17, bits: 8 },
  float8e4m3fnuz: { code: 18, bits: 8 },
  float8e5m2: { code: 19, bits: 8 },
  float8e5m2fnuz: { code: 20, bits: 8 },
  uint4: { code: 21, bits: 4 },
  int4: { code: 22, bits: 4 },
  float4e2m1: { code: 23, bits: 4 },
  float8e8m0: { code: 24, bits: 8 },
  uint2: { code: 25, bits: 2 },
  int2: { code: 26, bits: 2 },
} as const;

export type ElementType = keyof typeof ELEMENT_TYPES;

/** A fixed size, the name of a symbolic size, or null where nothing is known. */
export type Dim = number | string | null;

/** `shape` is null when not even the rank is known. */
export interface TensorType {
  readonly elem: ElementType;
  readonly shape: readonly Dim[] | null;
}

/** Types of the tensors that go into a runtime and come out of it. */
export const RUNTIME_TYPES = [
  ...(["float", "double", "float16", "bool"] as const),
  ...(["int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8"] as const),
] satisfies readonly ElementType[];

const runtimeTypes: ReadonlySet<ElementType> = new Set<ElementType>(RUNTIME_TYPES);

/** Whether a runtime takes and returns tensors of this type. */
export function isRuntimeType(elem: ElementType): boolean {
  return runtimeTypes.has(elem);
}

/** The types that a network can compute in; ir/tensor.ts converts tensors between them. */
export const FLOAT_TYPES = ["float", "float16", "bfloat16"] as const satisfies readonly ElementType[];

export type FloatType = (typeof FLOAT_TYPES)[number];

export function isFloatType(elem: ElementType | undefined): elem is FloatType {
  return FLOAT_TYPES.some((type) => type === elem);
}

const byCode = new Map<number, ElementType>();
for (const name in ELEMENT_TYPES) {
  if (isElementType(name)) byCode.set(ELEMENT_TYPES[name].code, name);
}

export function isElementType(name: string): name is ElementType {
  return Object.hasOwn(ELEMENT_TYPES, name);
}

/** The element type with this number in the file format, if there is one. */
export function elementTypeOf(code: number): ElementType | undefined {
  return byCode.get(code);
}

/** The number of elements of a fixed shape; 1 for a scalar. */
export function elementCount(shape: readonly number[]): number {
  return shape.reduce((product, dim) => product * dim, 1);
}

/** Bytes of `count` densely packed elements (sub-byte types are packed, the last byte padded). */
export function byteSize(elem: ElementType, count: number): number {
  return Math.ceil((count * ELEMENT_TYPES[elem].bits) / 8);
}

/** The sizes of the symbolic dimensions of declared shapes, by name, from what is known of each. */
export function namedSizes(
  shapes: Iterable<readonly [declared: readonly Dim[] | null | undefined, known: readonly Dim[] | null | undefined]>,
): ReadonlyMap<string, number> {
  const sizes = new Map<string, number>();
  for (const [declared, known] of shapes)
    for (const [axis, dim] of declared?.entries() ?? []) {
      const size = known?.[axis];
      if (typeof dim === "string" && typeof size === "number") sizes.set(dim, size);
    }
  return sizes;
}

/** The shape if every dimension of it is a number, else undefined. */
export function staticShape(type: TensorType | undefined): readonly number[] | undefined {
  const shape = type?.shape;
  if (!shape) return undefined;
  const fixed: number[] = [];
  for (const dim of shape) {
    if (typeof dim !== "number") return undefined;
    fixed.push(dim);
  }
  return fixed;
}

export function sameType(a: TensorType | undefined, b: TensorType | undefined): boolean {
  if (a === b) return true;
  if (!a || !b || a.elem !== b.elem) return false;
  return sameShape(a.shape, b.shape);
}

export function sameShape(a: readonly Dim[] | null, b: readonly Dim[] | null): boolean {
  if (!a || !b) return a === b;
  return a.length === b.length && a.every((dim, i) => dim === b[i]);
}

/** The shape that these broadcast to, if they do. */
export function broadcastShape(shapes: readonly (readonly number[])[]): readonly number[] | undefined {
  const rank = shapes.reduce((most, { length }) => Math.max(most, length), 0);
  const dims = new Array<number>(rank).fill(1);
  for (const shape of shapes) {
    for (const [i, dim] of shape.entries()) {
      const axis = rank - shape.length + i;
      if (dim === 1) continue;
      if (dims[axis] !== 1 && dims[axis] !== dim) return undefined;
      dims[axis] = dim;
    }
  }
  return dims;
}
