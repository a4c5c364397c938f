/** The exporter's step as the oracle runs it: some branches are replaced by inputs, for some of their tokens or for all, others are outputs. */
import { Builder, elemOf, shapeOf } from "../../ir/build.js";
import { ATTENDED } from "../../ir/own-tokens.js";
import { constant, inputValue, makeNode, type Mark, type Model, type Value } from "../../ir/graph.js";
import { rewrite, sweep } from "../../ir/rewrite.js";
import { tensorOf } from "../../ir/tensor.js";
import type { Fresh } from "../../schedules/index.js";
import { elementCount, type ElementType, isRuntimeType, type TensorType } from "../../ir/types.js";
import { type BranchTokens, NO_TOKENS, partOf } from "./branch-tokens.js";

/** The output that is the prediction. */
export const PREDICTION = "prediction";

/** The name of the input that replaces a branch. */
export function cacheInput(site: string): string {
  return `cache:${site}`;
}

/**
 * The name of the input that says by how much each token of a branch moves with what computing changes about each one, [tokens, tokens]; or about
 * itself alone, [tokens, 1].
 */
export function movesInput(site: string): string {
  return `moves:${site}`;
}

/** The name of the input that has what came into a branch when each of its tokens was computed last. */
export function seenInput(site: string): string {
  return `seen:${site}`;
}

/** A branch of which some tokens are computed. */
export type PartlyCached = Pick<Fresh, "count" | "size" | "tokens" | "keepsKeys" | "move">;

/** The branches of a step that are not computed whole, by site: not at all, or in part. */
export type CachedSites = ReadonlyMap<string, PartlyCached | undefined>;

/** A value of a step that is given: whole, or for tokens that do not move with those that are computed. */
interface Given {
  readonly value: Value;
  /** [tokens, tokens], or [tokens, 1] */
  readonly moves?: Value | undefined;
  /** The site whose tokens are chosen in the run. */
  readonly chosenFor?: string | undefined;
  readonly axis?: number | undefined;
}

/**
 * The step graph with the cached branches replaced by inputs, and the `probed` ones of the others as outputs: floats where the type is
 * none that the runtime takes and returns. A branch of which some tokens are computed is computed whole, and is input + moves · (computed − input),
 * or where they are chosen in the run, input + chosen · (computed − input); keys and values that are given are, too.
 */
export function stepWith(
  model: Model,
  cached: CachedSites,
  probed: ReadonlySet<string>,
  { attended, incoming }: BranchTokens = NO_TOKENS,
): Model {
  const { graph } = model;
  const [before, after] = [new Builder(), new Builder()];
  const inputs: Value[] = [];
  const input = (name: string, type: TensorType): Value => {
    const made = inputValue(name, type);
    inputs.push(made);
    return made;
  };
  const given = new Map<Value, Given>();
  const give = (site: string, value: Value, partly?: PartlyCached, axis?: number, chosenFor = site): void => {
    const made = input(cacheInput(site), { elem: handedAs(value), shape: shapeOf(value) });
    const moves = partly?.tokens && input(movesInput(site), { elem: "float", shape: [partly.count, partly.move ? partly.count : 1] });
    const isChosen = partly !== undefined && !partly.tokens;
    given.set(value, {
      value: before.cast(made, elemOf(value), `${made.name}/narrow`),
      ...{ moves, axis, chosenFor: isChosen ? chosenFor : undefined },
    });
  };
  const shown: Mark[] = [];
  const choosing = new Map<Value, { readonly mark: Mark; readonly partly: PartlyCached; readonly seen: Value }[]>();
  for (const mark of graph.marks) {
    const { site, value } = mark;
    const partly = cached.get(site);
    const isComputed = partly !== undefined || !cached.has(site);
    if (probed.has(site) && isComputed) shown.push(mark);
    if (cached.has(site)) give(site, value, partly);
    const entry = isComputed ? incoming.get(site) : undefined;
    if (entry) shown.push({ ...mark, site: partOf(site, "incoming"), value: entry });
    if (entry && partly && !partly.tokens) {
      const seen = input(seenInput(site), { elem: handedAs(entry), shape: shapeOf(entry) });
      choosing.set(entry, [...(choosing.get(entry) ?? []), { mark, partly, seen }]);
    }
    const own = isComputed ? attended.get(site) : undefined;
    for (const part of own ? ATTENDED : []) {
      const place = own?.[part];
      if (!place) continue;
      if (probed.has(site)) shown.push({ ...mark, site: partOf(site, part), value: place.value });
      if (partly?.keepsKeys) give(partOf(site, part), place.value, { ...partly, move: undefined }, place.axis, site);
    }
  }
  /** Which tokens of a site are chosen: [batch, tokens], 1 or 0. */
  const chosen = new Map<string, Value>();
  const cut = rewrite({ ...graph, marks: shown }, (node, original) => {
    const build = new Builder();
    const outputs = original.outputs.map((value, i) => {
      const entry = given.get(value);
      const own = node.outputs[i] ?? value;
      for (const { mark, partly, seen } of choosing.get(value) ?? []) chosen.set(mark.site, mostChanged(build, own, seen, partly.size));
      const choice = entry?.chosenFor === undefined ? undefined : chosen.get(entry.chosenFor);
      if (entry && choice) return replaced(build, entry, own, choice);
      return entry?.moves ? moved(build, entry, own, entry.moves) : (entry?.value ?? own);
    });
    const isSame = build.nodes.length === 0 && outputs.every((value, i) => value === node.outputs[i]);
    return isSame ? undefined : { nodes: [node, ...build.nodes], outputs };
  });
  const [prediction] = cut.outputs;
  if (!prediction) throw new Error("internal: a step without a prediction");
  const probes = cut.marks.map(({ site, value }) => ({ name: site, value: after.cast(value, handedAs(value), `${value.name}/wide`) }));
  const choices = Array.from(chosen, ([site, value]) => ({ name: partOf(site, "chosen"), value }));
  const outputs = [{ name: PREDICTION, value: prediction.value }, ...probes, ...choices];
  const nodes = [...before.nodes, ...cut.nodes, ...after.nodes];
  return { ...model, graph: sweep({ ...cut, inputs: [...cut.inputs, ...inputs], outputs, nodes, marks: [] }) };
}

/** 1 for the tokens whose mean |now − seen| over channels is at least that of the `size`-th largest, else 0: [batch, tokens]. */
function mostChanged(build: Builder, now: Value, seen: Value, size: number): Value {
  const [batch = 1, count = 1, channels = 1] = shapeOf(now);
  const name = `${now.name}/changed`;
  const type = (elem: ElementType, ...shape: readonly number[]): TensorType => ({ elem, shape });
  const [a, b] = [build.cast(now, "float", `${name}/now`), build.cast(seen, "float", `${name}/seen`)];
  const change = build.op(
    "Abs",
    [build.op("Sub", [a, b], `${name}/by`, type("float", batch, count, channels))],
    `${name}/size`,
    type("float", batch, count, channels),
  );
  const ones = constant(`${name}/ones`, tensorOf("float", [channels, 1], new Array<number>(channels).fill(1 / channels)));
  const means = build.reshape(
    build.op("MatMul", [change, ones], `${name}/sum`, type("float", batch, count, 1)),
    [batch, count],
    `${name}/means`,
  );
  const number = constant(`${name}/number`, tensorOf("int64", [1], [size]));
  const top = makeNode({ opType: "TopK", name: `${name}/top`, inputs: [means, number], outputs: [{ name: `${name}/largest`, type: type("float", batch, size) }, { name: `${name}/places`, type: type("int64", batch, size) }] }); // prettier-ignore
  build.nodes.push(top);
  const [largest] = top.outputs;
  if (!largest) throw new Error("internal: TopK without values");
  const least = build.slice(largest, 1, size - 1, size, `${name}/least`);
  return build.cast(build.op("GreaterOrEqual", [means, least], `${name}/is`, type("bool", batch, count)), "float", name);
}

/** given + chosen · (own − given) */
function replaced(build: Builder, { value: given, axis = 1 }: Given, own: Value, chosen: Value): Value {
  const name = `${own.name}/replaced`;
  const shape = shapeOf(own);
  const type: TensorType = { elem: "float", shape };
  const [from, to] = [build.cast(given, "float", `${name}/given`), build.cast(own, "float", `${name}/own`)];
  const mask = build.reshape(
    chosen,
    shape.map((size, i) => (i === 0 || i === axis ? size : 1)),
    `${name}/mask`,
  );
  const change = build.op("Mul", [mask, build.op("Sub", [to, from], `${name}/change`, type)], `${name}/part`, type);
  return build.cast(build.op("Add", [from, change], `${name}/sum`, type), elemOf(own), name);
}

/** given + moves · (own − given), over tokens: those of each row of the batch, along an axis or in front of the channels. */
function moved(build: Builder, { value: given, axis }: Given, own: Value, moves: Value): Value {
  const name = `${own.name}/moved`;
  const shape = shapeOf(own);
  const [count = 1, width] = shapeOf(moves);
  const inner = elementCount(shape.slice((axis ?? shape.length - 2) + 1));
  const rows = [elementCount(shape) / inner / count, count, inner];
  const type = (shape: readonly number[]): TensorType => ({ elem: "float", shape });
  const [from, to] = [build.cast(given, "float", `${name}/given`), build.cast(own, "float", `${name}/own`)];
  const change = build.reshape(build.op("Sub", [to, from], `${name}/change`, type(shape)), rows, `${name}/rows`);
  const sum = build.reshape(build.op(width === 1 ? "Mul" : "MatMul", [moves, change], `${name}/spread`, type(rows)), shape, `${name}/back`);
  return build.cast(build.op("Add", [from, sum], `${name}/sum`, type(shape)), elemOf(own), name);
}

function handedAs(value: Value): ElementType {
  const elem = elemOf(value);
  return isRuntimeType(elem) ? elem : "float";
}
