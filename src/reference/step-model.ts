/** The exporter's step as the oracle runs it: some branches are replaced by inputs, for some of their tokens or for all, others are outputs. */
import { Builder, elemOf, shapeOf } from "../../ir/build.js";
import { ATTENDED, type Attended } from "../../ir/attended.js";
import { inputValue, type Mark, type Model, type Value } from "../../ir/graph.js";
import { rewrite, sweep } from "../../ir/rewrite.js";
import { elementCount, type ElementType, isRuntimeType, type TensorType } from "../../ir/types.js";

/** The output that is the prediction. */
export const PREDICTION = "prediction";

/** The name of the input that replaces a branch. */
export function cacheInput(site: string): string {
  return `cache:${site}`;
}

/** The name of the input [tokens, tokens] that says by how much each token of a branch moves with what computing changes about each other one. */
export function movesInput(site: string): string {
  return `moves:${site}`;
}

/** A branch of which some tokens are computed: of so many, and whether keys and values of the others are given as well. */
export interface PartlyCached {
  readonly count: number;
  readonly keepsKeys: boolean;
}

/** The branches of a step that are not computed whole, by site: not at all, or in part. */
export type CachedSites = ReadonlyMap<string, PartlyCached | undefined>;

/** The name under which keys or values of a branch are given and returned. */
export function attendedSite(site: string, part: keyof Attended): string {
  return `${site}/${part}`;
}

/** A value of a step that is given: whole, or for tokens that do not move with those that are computed. */
interface Given {
  readonly value: Value;
  readonly moves?: Value | undefined;
  readonly axis?: number | undefined;
}

/**
 * The step graph with the cached branches replaced by inputs, and the `probed` ones of the others as outputs: floats where the type is
 * none that the runtime takes and returns. A branch of which some tokens are computed is computed whole, and is input + moves · (computed − input);
 * keys and values are, with moves of their own. `attended` has these of the branches of which they are probed or given.
 */
export function stepWith(
  model: Model,
  cached: CachedSites,
  probed: ReadonlySet<string>,
  attended: ReadonlyMap<string, Attended> = new Map(),
): Model {
  const { graph } = model;
  const [before, after] = [new Builder(), new Builder()];
  const inputs: Value[] = [];
  const input = (name: string, type: TensorType): Value => {
    const made = inputValue(name, type);
    inputs.push(made);
    return made;
  };
  const square = (name: string, count: number): Value => input(name, { elem: "float", shape: [count, count] });
  const givenOf = (site: string, value: Value): Value => {
    const made = input(cacheInput(site), { elem: handedAs(value), shape: shapeOf(value) });
    return before.cast(made, elemOf(value), `${made.name}/narrow`);
  };
  const given = new Map<Value, Given>();
  const shown: Mark[] = [];
  for (const mark of graph.marks) {
    const { site, value } = mark;
    const partly = cached.get(site);
    if (probed.has(site) && (partly || !cached.has(site))) shown.push(mark);
    if (cached.has(site)) given.set(value, { value: givenOf(site, value), moves: partly && square(movesInput(site), partly.count) });
    const own = cached.has(site) && !partly ? undefined : attended.get(site);
    for (const part of own ? ATTENDED : []) {
      const place = own?.[part];
      const name = attendedSite(site, part);
      if (!place) continue;
      if (probed.has(site)) shown.push({ ...mark, site: name, value: place.value });
      if (partly?.keepsKeys)
        given.set(place.value, { value: givenOf(name, place.value), moves: square(movesInput(name), partly.count), axis: place.axis });
    }
  }
  const cut = rewrite({ ...graph, marks: shown }, (node, original) => {
    if (!original.outputs.some((value) => given.has(value))) return undefined;
    const build = new Builder();
    const outputs = original.outputs.map((value, i) => {
      const entry = given.get(value);
      const own = node.outputs[i] ?? value;
      return entry?.moves ? moved(build, entry, own, entry.moves) : (entry?.value ?? own);
    });
    return { nodes: [node, ...build.nodes], outputs };
  });
  const [prediction] = cut.outputs;
  if (!prediction) throw new Error("internal: a step without a prediction");
  const probes = cut.marks.map(({ site, value }) => ({ name: site, value: after.cast(value, handedAs(value), `${value.name}/wide`) }));
  const outputs = [{ name: PREDICTION, value: prediction.value }, ...probes];
  const nodes = [...before.nodes, ...cut.nodes, ...after.nodes];
  return { ...model, graph: sweep({ ...cut, inputs: [...cut.inputs, ...inputs], outputs, nodes, marks: [] }) };
}

/** given + moves · (own − given), over tokens: those of each row of the batch, along an axis or in front of the channels. */
function moved(build: Builder, { value: given, axis }: Given, own: Value, moves: Value): Value {
  const name = `${own.name}/moved`;
  const shape = shapeOf(own);
  const [count = 1] = shapeOf(moves);
  const inner = elementCount(shape.slice((axis ?? shape.length - 2) + 1));
  const rows = [elementCount(shape) / inner / count, count, inner];
  const type = (shape: readonly number[]): TensorType => ({ elem: "float", shape });
  const [from, to] = [build.cast(given, "float", `${name}/given`), build.cast(own, "float", `${name}/own`)];
  const change = build.reshape(build.op("Sub", [to, from], `${name}/change`, type(shape)), rows, `${name}/rows`);
  const sum = build.reshape(build.op("MatMul", [moves, change], `${name}/spread`, type(rows)), shape, `${name}/back`);
  return build.cast(build.op("Add", [from, sum], `${name}/sum`, type(shape)), elemOf(own), name);
}

function handedAs(value: Value): ElementType {
  const elem = elemOf(value);
  return isRuntimeType(elem) ? elem : "float";
}
