/** The exporter's step as the oracle runs it: some branches are replaced by inputs, for some of their tokens or for all, others are outputs. */
import { Builder, elemOf, shapeOf } from "../../ir/build.js";
import { inputValue, type Model, type Value } from "../../ir/graph.js";
import { rewrite, sweep } from "../../ir/rewrite.js";
import { type ElementType, isRuntimeType, type TensorType } from "../../ir/types.js";

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

/** The branches of a step that are not computed whole, by site: none of a branch's tokens are computed, or some of so many. */
export type CachedSites = ReadonlyMap<string, { readonly count: number } | undefined>;

/**
 * The step graph with the cached branches replaced by inputs, and the `probed` ones of the others as outputs: floats where the type is
 * none that the runtime takes and returns. A branch of which some tokens are computed is computed whole, and is input + moves · (computed − input).
 */
export function stepWith(model: Model, cached: CachedSites, probed: ReadonlySet<string>): Model {
  const { graph } = model;
  const [before, after] = [new Builder(), new Builder()];
  const inputs: Value[] = [];
  const fed = new Map<Value, { readonly value: Value; readonly moves?: Value | undefined }>();
  for (const { site, value } of graph.marks) {
    if (!cached.has(site)) continue;
    const tokens = cached.get(site);
    const input = inputValue(cacheInput(site), value.type && { ...value.type, elem: handedAs(value) });
    inputs.push(input);
    const moves = tokens && inputValue(movesInput(site), { elem: "float", shape: [tokens.count, tokens.count] });
    if (moves) inputs.push(moves);
    fed.set(value, { value: before.cast(input, elemOf(value), `${input.name}/narrow`), moves });
  }
  const cut = rewrite(graph, (node, original) => {
    if (!original.outputs.some((value) => fed.has(value))) return undefined;
    const build = new Builder();
    const outputs = original.outputs.map((value, i) => {
      const entry = fed.get(value);
      const own = node.outputs[i] ?? value;
      return entry?.moves ? moved(build, entry.value, own, entry.moves) : (entry?.value ?? own);
    });
    return { nodes: [node, ...build.nodes], outputs };
  });
  const [prediction] = cut.outputs;
  if (!prediction) throw new Error("internal: a step without a prediction");
  const probes = cut.marks.filter(({ site }) => probed.has(site) && (cached.get(site) !== undefined || !cached.has(site)));
  const shown = probes.map(({ site, value }) => ({ name: site, value: after.cast(value, handedAs(value), `${value.name}/wide`) }));
  const outputs = [{ name: PREDICTION, value: prediction.value }, ...shown];
  const nodes = [...before.nodes, ...cut.nodes, ...after.nodes];
  return { ...model, graph: sweep({ ...cut, inputs: [...cut.inputs, ...inputs], outputs, nodes, marks: [] }) };
}

/** held + moves · (own − held), over the tokens of each row of the batch. */
function moved(build: Builder, held: Value, own: Value, moves: Value): Value {
  const name = `${own.name}/moved`;
  const shape = shapeOf(own);
  const float = (value: Value, what: string): Value => build.cast(value, "float", `${name}/${what}`);
  const [from, to] = [float(held, "held"), float(own, "own")];
  const [count = 1] = shapeOf(moves);
  const rows = [...shape.slice(0, -2), (shape.at(-2) ?? 1) / count, count, shape.at(-1) ?? 1];
  const type = (shape: readonly number[]): TensorType => ({ elem: "float", shape });
  const change = build.reshape(build.op("Sub", [to, from], `${name}/change`, type(shape)), rows, `${name}/rows`);
  const sum = build.reshape(build.op("MatMul", [moves, change], `${name}/spread`, type(rows)), shape, `${name}/back`);
  return build.cast(build.op("Add", [from, sum], `${name}/sum`, type(shape)), elemOf(own), name);
}

function handedAs(value: Value): ElementType {
  const elem = elemOf(value);
  return isRuntimeType(elem) ? elem : "float";
}
