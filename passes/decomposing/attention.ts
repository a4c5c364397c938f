/** Attention of ONNX Runtime in its forms: softmax(scale · Q · Kᵀ + masks) · V, with heads side by side, packed, shared or cached. */
import { type Builder, elemOf, scalarLike, shapeOf } from "../../ir/build.js";
import { constantOf } from "../../ir/constants.js";
import { constant, floatAttribute, intAttribute, intsAttribute, type Node, type Value } from "../../ir/graph.js";
import { tensorNumbers, tensorOf } from "../../ir/tensor.js";
import { broadcastShape, type ElementType } from "../../ir/types.js";
import { int } from "./products.js";
import { rotated, SPLITTING } from "./rotary.js";
import { binary, first, isNamed } from "./rule.js";

/** Four axes: [batch, length, heads, size], or [batch, heads, length, size] where heads come first. */
interface Heads {
  readonly value: Value;
  readonly isByHead?: boolean;
}

/** What is added to the scores, [batch or 1, heads or 1, queries or 1, keys]. */
type Mask = Value;

interface Operands {
  readonly query: Heads;
  readonly keys: Heads;
  readonly values: Heads;
  readonly masks: readonly Mask[];
}

/** The result [batch, length, heads · size]. */
function attended(node: Node, build: Builder, { query, keys, values, masks }: Operands, name: string): Value {
  const elem = elemOf(query.value);
  const q = byHead(build, query, `${name}/query`);
  const [batch = 1, heads = 1, length = 1, size = 1] = shapeOf(q);
  const turned = build.transpose(keys.value, keys.isByHead ? [0, 1, 3, 2] : [0, 2, 3, 1], `${name}/keys`);
  const v = byHead(build, values, `${name}/values`);
  const given = floatAttribute(node, "scale", 0);
  // The scale stands at the query, which is smaller than the scores, and they overflow later.
  const scaled = binary(build, "Mul", q, scalarLike(q, given === 0 ? 1 / Math.sqrt(size) : given), `${name}/scaled`);
  const shape = [batch, heads, length, shapeOf(turned)[3] ?? 1];
  const product = build.op("MatMul", [scaled, turned], `${name}/scores`, { elem, shape });
  const masked = masks.reduce((scores, mask, i) => binary(build, "Add", scores, mask, `${name}/masked${i}`), product);
  const weights = build.op("Softmax", [masked], `${name}/weights`, { elem, shape }, { axis: int(3) });
  const wide = shapeOf(v)[3] ?? 1;
  const mixed = build.op("MatMul", [weights, v], `${name}/mixed`, { elem, shape: [batch, heads, length, wide] });
  return build.reshape(build.transpose(mixed, [0, 2, 1, 3], `${name}/tokens`), [batch, length, heads * wide], name);
}

function byHead(build: Builder, { value, isByHead }: Heads, name: string): Value {
  return isByHead ? value : build.transpose(value, [0, 2, 1, 3], name);
}

/** [batch, length, heads · size] with a bias, which is a part of one for all three, as heads. */
function headsOf(build: Builder, x: Value, heads: number, bias: Value | undefined, name: string): Heads {
  const [batch = 1, length = 1, width = 1] = shapeOf(x);
  const biased = bias ? binary(build, "Add", x, bias, `${name}_biased`) : x;
  return { value: build.reshape(biased, [batch, length, heads, width / heads], `${name}_heads`) };
}

/** Parts of an axis. */
function parts(build: Builder, x: Value, axis: number, sizes: readonly number[], name: string): readonly Value[] {
  return sizes.map((size, i) => {
    const start = sizes.slice(0, i).reduce((sum, other) => sum + other, 0);
    return build.slice(x, axis, start, start + size, `${name}${i}`);
  });
}

/** Query, keys and values are made of one operand by one matrix. */
export function attention(node: Node, build: Builder): readonly (Value | undefined)[] | undefined {
  const [x, weights, bias, mask, past, added] = node.inputs;
  const out = first(node);
  if (!x || !weights || past || intAttribute(node, "do_rotary", 0) !== 0 || node.outputs.slice(1).some(isNamed)) return undefined;
  const [batch = 1, length = 1] = shapeOf(x);
  const masks = masksOf(node, build, { mask, added, batch, queries: length, keys: length });
  const projected = masks && threeOf(node, build, x, weights, bias);
  return masks && projected && [attended(node, build, { ...projected, masks }, out.name)];
}

function threeOf(node: Node, build: Builder, x: Value, weights: Value, bias: Value | undefined): Omit<Operands, "masks"> | undefined {
  const { name } = first(node);
  const heads = intAttribute(node, "num_heads", 1);
  const whole = shapeOf(weights)[1] ?? 0;
  const sizes = intsAttribute(node, "qkv_hidden_sizes") ?? [whole / 3, whole / 3, whole / 3];
  const type = { elem: elemOf(x), shape: [...shapeOf(x).slice(0, -1), whole] };
  const product = build.op("MatMul", [x, weights], `${name}/projected`, type);
  const biased = bias ? binary(build, "Add", product, bias, `${name}/biased`) : product;
  const [query, keys, values] = parts(build, biased, 2, sizes, `${name}/part`).map((part, i) =>
    headsOf(build, part, heads, undefined, `${name}/${i}`),
  );
  return query && keys && values && { query, keys, values };
}

/** Query, keys and values are given, next to each other in one operand or apart, with heads side by side. */
export function multiHeadAttention(node: Node, build: Builder): readonly (Value | undefined)[] | undefined {
  const [query, , , , padding, added, ...cached] = node.inputs;
  const out = first(node);
  if (!query || cached.some((value) => value !== undefined) || isNamed(node.outputs[3])) return undefined;
  const three = separate(node, build, node.inputs[3]);
  if (!three) return undefined;
  const [batch = 1, queries = 1] = shapeOf(three.query.value);
  const keys = shapeOf(three.keys.value)[three.keys.isByHead ? 2 : 1] ?? 1;
  const masks = masksOf(node, build, { mask: padding, added, batch, queries, keys });
  return masks && [attended(node, build, { ...three, masks }, out.name), ...present(node, build, three)];
}

/** The keys and values that a cache would hold, where somebody reads them. */
function present(node: Node, build: Builder, { keys, values }: Pick<Operands, "keys" | "values">): readonly (Value | undefined)[] {
  return [keys, values].map((heads, i) => {
    const output = node.outputs[i + 1];
    if (!isNamed(output)) return undefined;
    return heads.isByHead ? heads.value : byHead(build, heads, output.name);
  });
}

function separate(node: Node, build: Builder, bias: Value | undefined): Omit<Operands, "masks"> | undefined {
  const [query, keys, values] = node.inputs;
  if (!query) return undefined;
  const { name } = first(node);
  const heads = intAttribute(node, "num_heads", 1);
  const unpacked = (x: Value, count: number): readonly Value[] => {
    // [batch, length, heads, count, size]
    const [batch = 1, length = 1, , , size = 1] = shapeOf(x);
    return parts(build, x, 3, new Array<number>(count).fill(1), `${x.name}/part`).map((part, i) =>
      build.reshape(part, [batch, length, heads * size], `${name}/unpacked${count - i}`),
    );
  };
  const given = [
    ...(keys ? [query] : unpacked(query, 3)),
    ...(keys && !values ? unpacked(keys, 2) : [keys, values].flatMap((value) => value ?? [])),
  ];
  // Keys and values of four axes have their heads first and no bias.
  const widths = given.map((value) => (shapeOf(value).length === 4 ? 0 : (shapeOf(value)[2] ?? 0)));
  const biases = bias ? parts(build, bias, 0, widths, `${name}/bias`) : [];
  const [q, k, v] = given.map((value, i): Heads => {
    if (shapeOf(value).length === 4) return { value, isByHead: true };
    return headsOf(build, value, heads, widths[i] === 0 ? undefined : biases[i], `${name}/${i}`);
  });
  return q && k && v && { query: q, keys: k, values: v };
}

interface MaskFacts {
  readonly mask: Value | undefined;
  readonly added: Value | undefined;
  readonly batch: number;
  readonly queries: number;
  readonly keys: number;
}

/** What is added to the scores: what the node is given, what it makes of a mask, and what hides later tokens; undefined for other masks. */
function masksOf(node: Node, build: Builder, { mask, added, batch, queries, keys }: MaskFacts): readonly Mask[] | undefined {
  const { name } = first(node);
  const elem = elemOf(first(node));
  const hidden = floatAttribute(node, "mask_filter_value", -10000);
  const masks = added ? [added] : [];
  if (mask) {
    const seen = seenKeys(build, mask, batch, queries, keys, `${name}/mask`);
    if (!seen) return undefined;
    const [none, all] = [0, hidden].map((number) => constant(`${name}/mask_${number}`, tensorOf(elem, [], [number])));
    masks.push(build.op("Where", [seen, none, all], `${name}/mask`, { elem, shape: shapeOf(seen) }));
  }
  if (intAttribute(node, "unidirectional", 0) !== 0) masks.push(laterHidden(elem, queries, keys, name));
  return masks;
}

/** Hides from each query the keys behind it. As in the runtime's kernel, the last query sees all. */
function laterHidden(elem: ElementType, queries: number, keys: number, name: string): Mask {
  const isHidden = (at: number): boolean => {
    const query = Math.floor(at / keys);
    return query < queries - 1 && at % keys > query;
  };
  const numbers = Array.from({ length: queries * keys }, (_, at) => (isHidden(at) ? -Infinity : 0));
  return constant(`${name}/later`, tensorOf(elem, [1, 1, queries, keys], numbers));
}

/**
 * Which keys may be seen, [batch, 1, queries or 1, keys], from a mask of ones and zeros, from the number of keys in each row, or from the
 * end and the start of them; undefined for other forms.
 */
function seenKeys(build: Builder, mask: Value, batch: number, queries: number, keys: number, name: string): Value | undefined {
  const shape = shapeOf(mask);
  const elem = elemOf(mask);
  const compared = (opType: "Less" | "Greater" | "And", a: Value, b: Value, label: string): Value =>
    build.op(opType, [a, b], label, { elem: "bool", shape: broadcastShape([shapeOf(a), shapeOf(b)]) ?? [] });
  if (shape.length === 2 || shape.length === 3) {
    if (shape[0] !== batch || shape.at(-1) !== keys || (shape.length === 3 && shape[1] !== queries)) return undefined;
    const view = build.reshape(mask, [batch, 1, shape.length === 3 ? queries : 1, keys], `${name}/view`);
    return compared("Greater", view, scalarLike(mask, 0), `${name}/seen`);
  }
  const [count = 0] = shape;
  if (shape.length !== 1 || (count !== batch && count !== 2 * batch)) return undefined;
  const numbers = Array.from({ length: keys }, (_, at) => at);
  const places = constant(`${name}/places`, tensorOf(elem, [keys], numbers));
  const column = (start: number, label: string): Value =>
    build.reshape(build.slice(mask, 0, start, start + batch, `${name}/${label}s`), [batch, 1, 1, 1], `${name}/${label}`);
  const ended = compared("Less", places, column(0, "end"), `${name}/ended`);
  if (count === batch) return ended;
  const before = build.op("Sub", [column(batch, "start"), scalarLike(mask, 1)], `${name}/before`, { elem, shape: [batch, 1, 1, 1] });
  return compared("And", ended, compared("Greater", places, before, `${name}/begun`), `${name}/seen`);
}

/** Inputs and attributes of shared heads beyond those of plain attention, with the numbers at which they do nothing. */
const EXTRAS: readonly (readonly [string, number])[] = [["softcap", 0], ["local_window_size", -1], ["kv_cache_bit_width", 0], ["sliding_window_cache", 0], ["qk_output", 0]]; // prettier-ignore

/** Each head of the keys and values serves several of the query; every row is as long as its tokens, and nothing is cached. */
export function groupQueryAttention(node: Node, build: Builder, opset: number): readonly (Value | undefined)[] | undefined {
  const [query, keys, values, pastKeys, , lengths, , cos, sin, positions, added, ...others] = node.inputs;
  const out = first(node);
  const { name } = out;
  const isPlain = EXTRAS.every(
    ([key, nothing]) => floatAttribute(node, key, nothing) === nothing && intAttribute(node, key, nothing) === nothing,
  );
  const isEmpty = !pastKeys || shapeOf(pastKeys).includes(0);
  if (!query || !isPlain || !isEmpty || intAttribute(node, "smooth_softmax", -1) > 0 || others.some((value) => value !== undefined))
    return undefined;
  const [batch = 1, length = 1, width = 1] = shapeOf(query);
  const ends = constantOf(lengths);
  if (!ends || tensorNumbers(ends).some((end) => end !== length - 1) || isNamed(node.outputs[3])) return undefined;
  const [own, shared] = [intAttribute(node, "num_heads", 1), intAttribute(node, "kv_num_heads", 1)];
  const size = keys ? width / own : width / (own + 2 * shared);
  const given = keys && values ? [query, keys, values] : parts(build, query, 2, [own * size, shared * size, shared * size], `${name}/part`);
  const [q, k, v] = given.map((value, i) => headsOf(build, value, i === 0 ? own : shared, undefined, `${name}/${i}`));
  if (!q || !k || !v) return undefined;
  const isTurned = intAttribute(node, "do_rotary", 0) !== 0;
  if (isTurned && (!cos || !sin || positions || opset < SPLITTING)) return undefined;
  const turned = ({ value }: Heads, label: string): Heads => {
    if (!isTurned || !cos || !sin) return { value };
    const start = constant(`${name}/start`, tensorOf("int64", [1], [0]));
    const tables = { cos, sin, positions: start, isInterleaved: intAttribute(node, "rotary_interleaved", 0) !== 0 };
    return { value: rotated(build, value, 1, tables, `${name}/${label}`) };
  };
  const repeated = ({ value }: Heads, label: string): Heads => {
    if (own === shared) return { value };
    const type = { elem: elemOf(value), shape: [batch, length, shared, own / shared, size] };
    const apart = build.reshape(value, [batch, length, shared, 1, size], `${name}/${label}_apart`);
    const sizes = constant(`${name}/${label}_sizes`, tensorOf("int64", [5], type.shape));
    const all = build.op("Expand", [apart, sizes], `${name}/${label}_repeated`, type);
    return { value: build.reshape(all, [batch, length, own, size], `${name}/${label}_shared`) };
  };
  const once = { keys: turned(k, "turned_keys"), values: v };
  const isCausal = intAttribute(node, "causal", 1) !== 0;
  const masks = [...(added ? [added] : []), ...(isCausal ? [laterHidden(elemOf(out), length, length, name)] : [])];
  const operands = { query: turned(q, "turned_query"), keys: repeated(once.keys, "keys"), values: repeated(once.values, "values"), masks };
  return [attended(node, build, operands, name), ...present(node, build, once)];
}

/** Sequences without their padding: they are padded for attention, which hides the padding, and packed again. Their lengths are constant. */
export function packedAttention(node: Node, build: Builder): readonly Value[] | undefined {
  const isProjected = node.opType === "PackedAttention";
  const [x, second, third] = node.inputs;
  const [bias, offsets, ends, added] = node.inputs.slice(isProjected ? 2 : 3);
  const [places, sums] = [constantOf(offsets), constantOf(ends)];
  const out = first(node);
  const { name } = out;
  if (!x || !places || !sums || !offsets) return undefined;
  const [batch = 1, longest = 1] = shapeOf(offsets);
  const [tokens = 0] = shapeOf(x);
  const order = tensorNumbers(places).slice(0, tokens);
  const sources = new Array<number>(batch * longest).fill(0);
  for (const [token, place] of order.entries()) sources[place] = token;
  const totals = tensorNumbers(sums);
  const lengths = totals.slice(1).map((total, i) => total - (totals[i] ?? 0));
  const padded = (value: Value, label: string): Value =>
    build.reshape(
      build.gatherRows(value, sources, `${name}/${label}_rows`),
      [batch, longest, ...shapeOf(value).slice(1)],
      `${name}/${label}`,
    );
  const hidden = floatAttribute(node, "mask_filter_value", -10000);
  const numbers = Array.from({ length: batch * longest }, (_, at) =>
    at % longest < (lengths[Math.floor(at / longest)] ?? 0) ? 0 : hidden,
  );
  const elem = elemOf(out);
  const masks = [...(added ? [added] : []), constant(`${name}/padding`, tensorOf(elem, [batch, 1, 1, longest], numbers))];
  const apart = isProjected
    ? second && threeOf(node, build, padded(x, "padded"), second, bias)
    : separate({ ...node, inputs: [x, second, third].map((value, i) => value && padded(value, `padded${i}`)) }, build, bias);
  if (!apart) return undefined;
  const mixed = attended(node, build, { ...apart, masks }, `${name}/padded_result`);
  const rows = build.reshape(mixed, [batch * longest, shapeOf(mixed)[2] ?? 1], `${name}/rows`);
  return [build.gatherRows(rows, order, name)];
}
