/**
 * Which rows of its operands a node needs for some rows of its results. Rows are the elements along one axis, such as the tokens of a
 * sequence. A node that treats each row by itself is computed for a part of them by computing it of these rows of its operands.
 */
import { smallConstant } from "./constants.js";
import { intAttribute, intsAttribute, isOp, type Node, type Value } from "./graph.js";
import { isElementwise, isNorm, isReduction, isRequantisation, productOf } from "./ops.js";
import { tensorNumbers } from "./tensor.js";
import { elementCount, staticShape } from "./types.js";

/**
 * Some elements along an axis, by rising number. Those that are only chosen in the run have their places among the chosen in place of numbers;
 * they may be others in each row of the batch, which is axis 0.
 */
export interface Rows {
  readonly axis: number;
  readonly at: readonly number[];
  /** Their numbers, [batch, rows, 1]. */
  readonly chosen?: Value | undefined;
}

/** The rows of a value that hold these of `count` tokens, in front of the channels or along an axis; each row of the batch may count them anew. */
export function tokenRows({ type }: Value, count: number, tokens: readonly number[], axis = (type?.shape?.length ?? 0) - 2): Rows {
  const repeats = (staticShape(type)?.[axis] ?? 0) / count;
  return { axis, at: Array.from({ length: repeats }, (_, i) => tokens.map((token) => i * count + token)).flat() };
}

/** What is needed of a value. */
export type Need = Rows | "all";

/** What is needed of each operand, in their order; undefined where nothing is. */
export type Needs = readonly (Need | undefined)[];

/**
 * What a node needs of its operands for what is wanted of its results (undefined: nothing). Undefined where it does not treat rows along that
 * axis by themselves.
 */
export function operandNeeds(node: Node, wanted: readonly (Need | undefined)[]): Needs | undefined {
  const picked = pickedRows(node, wanted);
  if (picked) return node.inputs.map((_, i) => (i === 0 ? picked : "all"));
  const rows = sameRows(wanted);
  if (rows === undefined || rows === "all") return node.inputs.map(() => "all");
  const isOfOneResult = isOp(node, "Split") || wanted.slice(1).every((need) => need === undefined);
  const needs = isOfOneResult && node.captures.length === 0 && node.subgraphs.length === 0 ? needsFor(node, rows) : undefined;
  const isChosenApart = !rows.chosen || node.inputs.every((value, i) => canBeChosen(node, value, needs?.[i]));
  return isChosenApart ? needs : undefined;
}

/** Whether rows of an operand can be others in each row of the batch: it has the batch in front, as the result has, or nothing in front of them. */
function canBeChosen(node: Node, value: Value | undefined, need: Need | undefined): boolean {
  if (need === undefined || need === "all") return true;
  const [shape, out] = [shapeAt(value) ?? [], shapeAt(node.outputs[0]) ?? []];
  const isBeforeAll = elementCount(shape.slice(0, need.axis)) === 1;
  const keepsBatch = need.axis > 0 && shape[0] === out[0] && !(isOp(node, "Transpose") && intsAttribute(node, "perm")?.[0] !== 0);
  return keepsBatch || (isBeforeAll && value !== node.inputs[0]) || (isBeforeAll && isElementwise(node));
}

/** Whether some operand is needed in part. */
export function isInPart(needs: Needs | undefined): needs is Needs {
  return needs?.some((need) => need !== undefined && need !== "all") ?? false;
}

/** The rows that all results are wanted in, as far as they are wanted. */
function sameRows(wanted: readonly (Need | undefined)[]): Need | undefined {
  const needs = wanted.filter((need) => need !== undefined);
  return needs.reduce<Need | undefined>((sum, need) => (sum === undefined ? need : joinedNeeds(sum, need)), undefined);
}

/** What serves both needs. */
export function joinedNeeds(one: Need, other: Need): Need {
  if (one === other) return one;
  if (one === "all" || other === "all" || one.axis !== other.axis || one.chosen !== other.chosen) return "all";
  if (one.chosen) return one;
  return { axis: one.axis, at: [...new Set([...one.at, ...other.at])].sort((a, b) => a - b) };
}

/** Where rows that a node picks from its first operand (Gather by a constant list, Slice, Split; GatherND) come from, for each result. */
export interface Picking {
  readonly axis: number;
  /** By result: the number in the operand of each of its rows. */
  readonly from: readonly (readonly number[])[];
  /** `Rows.chosen`, of the only result. */
  readonly chosen?: Value | undefined;
}

/** What a node picks; undefined if it is none that picks rows. */
export function pickingOf(node: Node): Picking | undefined {
  const shape = shapeAt(node.inputs[0]);
  if (isOp(node, "GatherND")) return choiceOf(node);
  if (!shape || !isOp(node, "Gather", "Slice", "Split")) return undefined;
  const wrap = (axis: number): number => (axis < 0 ? axis + shape.length : axis);
  if (isOp(node, "Gather")) {
    const indices = node.inputs[1]?.data;
    const axis = wrap(intAttribute(node, "axis", 0));
    if (indices?.shape.length !== 1 || node.inputs[0]?.data) return undefined;
    return { axis, from: [tensorNumbers(indices).map((index) => (index < 0 ? index + (shape[axis] ?? 0) : index))] };
  }
  if (isOp(node, "Split")) {
    const axis = wrap(intAttribute(node, "axis", 0));
    let start = 0;
    const from = node.outputs.map((output) => {
      const size = shapeAt(output)?.[axis] ?? 0;
      start += size;
      return counted(size, start - size);
    });
    return { axis, from };
  }
  const [starts, axes = [0], steps = [1]] = [1, 3, 4].map((place) =>
    node.inputs[place] ? (smallConstant(node.inputs[place]) ?? []) : undefined,
  );
  const [start, axis] = [starts?.[0], axes[0]];
  if (start === undefined || axis === undefined || starts?.length !== 1 || steps[0] !== 1) return undefined;
  const size = shape[wrap(axis)] ?? 0;
  const length = shapeAt(node.outputs[0])?.[wrap(axis)] ?? 0;
  return { axis: wrap(axis), from: [counted(length, Math.min(size, start < 0 ? Math.max(0, start + size) : start))] };
}

/** Tokens that are chosen in the run: GatherND of [batch, tokens, …] by [batch, rows, 1]. */
function choiceOf(node: Node): Picking | undefined {
  const [source, chosen] = node.inputs;
  const [from, by] = [shapeAt(source), shapeAt(chosen)];
  if (!from || from.length < 3 || by?.length !== 3 || by[2] !== 1 || intAttribute(node, "batch_dims", 0) !== 1 || !chosen?.producer)
    return undefined;
  return { axis: 1, from: [counted(by[1] ?? 0)], chosen };
}

/** The rows of its first operand that a node picks for what is wanted; undefined where rows along another axis are wanted, or none but all are picked. */
function pickedRows(node: Node, wanted: readonly (Need | undefined)[]): Need | undefined {
  const picking = pickingOf(node);
  if (!picking) return undefined;
  const { axis, from, chosen } = picking;
  if (chosen) return wanted[0] === "all" ? { axis, at: from[0] ?? [], chosen } : undefined;
  const at = new Set<number>();
  for (const [i, need] of wanted.entries()) {
    if (need === undefined) continue;
    if (need !== "all" && (need.axis !== axis || need.chosen)) return undefined;
    const source = from[i] ?? [];
    for (const row of need === "all" ? source : need.at.map((row) => source[row] ?? NaN)) at.add(row);
  }
  const size = shapeAt(node.inputs[0])?.[axis] ?? 0;
  return at.size === size ? "all" : { axis, at: [...at].sort((a, b) => a - b) };
}

function needsFor(node: Node, rows: Rows): Needs | undefined {
  const out = shapeAt(node.outputs[0]);
  if (!out || node.inputs.some((value) => value && !shapeAt(value))) return undefined;
  const { axis } = rows;
  const along = (place: number): Need => alignedNeed(node.inputs[place], out, rows);
  const onlyFirst = (need: Need | undefined): Needs | undefined => need && node.inputs.map((_, i) => (i === 0 ? need : "all"));
  const all = (): Needs => node.inputs.map((_, i) => along(i));
  const first = shapeAt(node.inputs[0]) ?? [];
  const wrap = (at: number, rank = first.length): number => (at < 0 ? at + rank : at);
  if (isOp(node, "Cast", "CastLike")) return onlyFirst(rows);
  if (isElementwise(node)) return all();
  if (isOp(node, "Clip", "Dropout")) return onlyFirst(rows);
  if (isRequantisation(node)) {
    const rank = (shapeAt(node.inputs[1]) ?? []).length;
    const isOfOtherAxis = rank === 0 || (rank === 1 && wrap(intAttribute(node, "axis", 1)) !== axis);
    return isOp(node, "QuantizeLinear", "DequantizeLinear") && isOfOtherAxis ? onlyFirst(rows) : undefined;
  }
  if (isOp(node, "LayerNormalization", "RMSNormalization")) return axis < wrap(intAttribute(node, "axis", -1)) ? all() : undefined;
  if (isNorm(node) && !isOp(node, "LpNormalization")) return undefined;
  if (isOp(node, "Softmax", "LogSoftmax", "LpNormalization"))
    return axis < wrap(intAttribute(node, "axis", -1)) ? onlyFirst(rows) : undefined;
  if (isOp(node, "RotaryEmbedding")) return rotaryNeeds(node, rows, first.length);
  if (isOp(node, "Attention")) return attentionNeeds(node, rows, first.length);
  if (isOp(node, "Gemm")) {
    if (axis !== 0 || intAttribute(node, "transA", 0) !== 0) return undefined;
    return node.inputs.map((_, i) => (i === 0 ? rows : i === 1 ? "all" : along(i)));
  }
  const product = productOf(node);
  if (isOp(node, "MatMul")) return matMulNeeds(node, out, rows);
  if (product?.form === "rows" && product.weight === "right") return axis < out.length - 1 ? onlyFirst(rows) : undefined;
  if (isOp(node, "Transpose")) {
    const perm = intsAttribute(node, "perm") ?? first.map((_, i) => first.length - 1 - i);
    return onlyFirst({ ...rows, axis: perm[axis] ?? axis });
  }
  if (isOp(node, "Reshape", "Squeeze", "Unsqueeze", "Flatten")) return onlyFirst(reshapedNeed(first, out, rows));
  if (isOp(node, "Expand")) return onlyFirst(along(0));
  if (isOp(node, "Concat")) return concatNeeds(node, wrap(intAttribute(node, "axis", 0), out.length), rows);
  if (isOp(node, "Slice", "Split")) return slicesAlong(node, axis) ? undefined : onlyFirst(rows);
  if (isOp(node, "Gather")) return gatherNeeds(node, rows, first.length);
  if (isOp(node, "ScatterND")) return scatterNeeds(node, rows);
  if (isReduction(node)) return reductionNeeds(node, rows, first.length);
  return undefined;
}

/** What elementwise results need of an operand that is broadcast to them. */
function alignedNeed(value: Value | undefined, out: readonly number[], rows: Rows): Need {
  const shape = shapeAt(value) ?? [];
  const own = rows.axis - (out.length - shape.length);
  return own < 0 || shape[own] === 1 ? "all" : { ...rows, axis: own };
}

/** Products of matrices treat the rows of the left one by themselves, the columns of the right one, and what is stacked in front of matrices. */
function matMulNeeds(node: Node, out: readonly number[], rows: Rows): Needs | undefined {
  const ranks = node.inputs.map((value) => (shapeAt(value) ?? []).length);
  if (ranks.some((rank) => rank < 2)) return undefined;
  if (rows.axis === out.length - 1) return ["all", { ...rows, axis: (ranks[1] ?? 2) - 1 }];
  if (rows.axis === out.length - 2) return [{ ...rows, axis: (ranks[0] ?? 2) - 2 }, "all"];
  return node.inputs.map((value) => alignedNeed(value, out, rows));
}

/** Queries are treated by themselves, keys and values are needed whole; Attention of the standard (onnx, docs/Operators.md). */
function attentionNeeds(node: Node, rows: Rows, rank: number): Needs | undefined {
  const mask = shapeAt(node.inputs[3]);
  const hasState = node.inputs.slice(4).some((value) => value !== undefined) || intAttribute(node, "is_causal", 0) !== 0;
  if (rows.axis !== (rank === 4 ? 2 : 1) || hasState) return undefined;
  const isMasked = mask && mask.length >= 2 && mask.at(-2) !== 1;
  return node.inputs.map((_, i) => (i === 0 ? rows : i === 3 && isMasked ? { ...rows, axis: mask.length - 2 } : "all"));
}

/** Of [batch, heads, tokens, channels] or [batch, tokens, channels]; angles are looked up by position, or given for each token. */
function rotaryNeeds(node: Node, rows: Rows, rank: number): Needs | undefined {
  if (rows.axis !== (rank === 4 ? 2 : 1)) return undefined;
  const hasPositions = node.inputs[3] !== undefined;
  const ofToken = { ...rows, axis: 1 };
  return node.inputs.map((_, i) => (i === 0 ? rows : hasPositions === (i === 3) ? ofToken : "all"));
}

/**
 * A row of the result is a row of the operand where the same number of elements lies in front of it. An axis may be split from one that
 * also counts what lies further out, or joined with it.
 */
function reshapedNeed(from: readonly number[], to: readonly number[], { axis, at, chosen }: Rows): Need | undefined {
  const size = to[axis] ?? 1;
  const before = elementCount(to.slice(0, axis));
  let [place, outer] = [0, 1];
  // The axis of the operand that ends where this one does.
  while (place < from.length && outer * (from[place] ?? 1) < before * size) outer *= from[place++] ?? 1;
  const own = from[place];
  if (own === undefined || outer * own !== before * size) return undefined;
  if (own === size) return { axis: place, at, chosen };
  if (chosen) return undefined;
  if (own > size) {
    const times = own / size;
    return { axis: place, at: Array.from({ length: times }, (_, i) => at.map((row) => i * size + row)).flat() };
  }
  const times = size / own;
  if (!Number.isInteger(times)) return undefined;
  const rows = at.filter((row) => row < own);
  const isRepeated =
    rows.length * times === at.length && at.every((row, i) => row === Math.floor(i / rows.length) * own + (rows[i % rows.length] ?? NaN));
  return isRepeated ? { axis: place, at: rows } : undefined;
}

function concatNeeds(node: Node, along: number, rows: Rows): Needs | undefined {
  if (rows.axis !== along) return node.inputs.map(() => rows);
  if (rows.chosen) return undefined;
  let start = 0;
  return node.inputs.map((value): Need | undefined => {
    const size = shapeAt(value)?.[along] ?? 0;
    const at = rows.at.filter((row) => row >= start && row < start + size).map((row) => row - start);
    start += size;
    return at.length === size ? "all" : at.length === 0 ? undefined : { axis: along, at };
  });
}

/** An embedding has a row for each of its indices; else what lies around the axis that is picked from stays. */
function gatherNeeds(node: Node, rows: Rows, rank: number): Needs | undefined {
  const { axis } = rows;
  const given = intAttribute(node, "axis", 0);
  const own = given < 0 ? given + rank : given;
  const indices = (shapeAt(node.inputs[1]) ?? []).length;
  if (axis < own) return [rows, "all"];
  if (axis >= own + indices) return [{ ...rows, axis: axis - indices + 1 }, "all"];
  return ["all", { ...rows, axis: axis - own }];
}

/** Indices speak of the first axes; what lies behind these is written row by row. */
function scatterNeeds(node: Node, rows: Rows): Needs | undefined {
  const { axis } = rows;
  const indices = shapeAt(node.inputs[1]) ?? [];
  const indexed = indices.at(-1) ?? 0;
  return axis < indexed ? undefined : [rows, "all", { ...rows, axis: axis - indexed + indices.length - 1 }];
}

function reductionNeeds(node: Node, rows: Rows, rank: number): Needs | undefined {
  const { axis } = rows;
  const given = intsAttribute(node, "axes") ?? smallConstant(node.inputs[1]);
  if (!given || given.length === 0) return undefined;
  const axes = new Set(given.map((one) => (one < 0 ? one + rank : one)));
  const kept = counted(rank).filter((one) => !axes.has(one));
  const own = intAttribute(node, "keepdims", 1) === 1 ? axis : kept[axis];
  return own === undefined || axes.has(own) ? undefined : node.inputs.map((_, i) => (i === 0 ? { ...rows, axis: own } : "all"));
}

/** Whether a Slice or Split cuts along an axis. */
function slicesAlong(node: Node, axis: number): boolean {
  const rank = (shapeAt(node.inputs[0]) ?? []).length;
  const axes = isOp(node, "Split") ? [intAttribute(node, "axis", 0)] : (smallConstant(node.inputs[3]) ?? counted(rank));
  return axes.some((one) => (one < 0 ? one + rank : one) === axis);
}

function shapeAt(value: Value | undefined): readonly number[] | undefined {
  return staticShape(value?.type);
}

function counted(length: number, start = 0): readonly number[] {
  return Array.from({ length }, (_, i) => start + i);
}
