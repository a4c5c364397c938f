/** The exporter's step as the oracle runs it: some branches are replaced by inputs, others are outputs. */
import { Builder, elemOf } from "../../ir/build.js";
import { inputValue, type Model, type Value } from "../../ir/graph.js";
import { rewrite, sweep } from "../../ir/rewrite.js";
import { type ElementType, isRuntimeType } from "../../ir/types.js";

/** The output that is the prediction. */
export const PREDICTION = "prediction";

/** The name of the input that replaces a branch. */
export function cacheInput(site: string): string {
  return `cache:${site}`;
}

/**
 * The step graph with the `cached` branches replaced by inputs, and the `probed` ones of the others as outputs: floats where the type is
 * none that the runtime takes and returns.
 */
export function stepWith(model: Model, cached: ReadonlySet<string>, probed: ReadonlySet<string>): Model {
  const { graph } = model;
  const [before, after] = [new Builder(), new Builder()];
  const inputs: Value[] = [];
  const fed = new Map<Value, Value>();
  for (const { site, value } of graph.marks) {
    if (!cached.has(site)) continue;
    const input = inputValue(cacheInput(site), value.type && { ...value.type, elem: handedAs(value) });
    inputs.push(input);
    fed.set(value, before.cast(input, elemOf(value), `${input.name}/narrow`));
  }
  const cut = rewrite(graph, (node, original) => {
    if (!original.outputs.some((value) => fed.has(value))) return undefined;
    return { nodes: [node], outputs: original.outputs.map((value, i) => fed.get(value) ?? node.outputs[i] ?? value) };
  });
  const [prediction] = cut.outputs;
  if (!prediction) throw new Error("internal: a step without a prediction");
  const probes = cut.marks.filter(({ site }) => probed.has(site) && !cached.has(site));
  const shown = probes.map(({ site, value }) => ({ name: site, value: after.cast(value, handedAs(value), `${value.name}/wide`) }));
  const outputs = [{ name: PREDICTION, value: prediction.value }, ...shown];
  const nodes = [...before.nodes, ...cut.nodes, ...after.nodes];
  return { ...model, graph: sweep({ ...cut, inputs: [...cut.inputs, ...inputs], outputs, nodes, marks: [] }) };
}

function handedAs(value: Value): ElementType {
  const elem = elemOf(value);
  return isRuntimeType(elem) ? elem : "float";
}
