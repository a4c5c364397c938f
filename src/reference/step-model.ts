/** The exporter's step as the oracle runs it: some branches are replaced by inputs, others are outputs. */
import { inputValue, type Model, type Value } from "../../ir/graph.js";
import { rewrite, sweep } from "../../ir/rewrite.js";

/** The output that is the prediction. */
export const PREDICTION = "prediction";

/** The name of the input that replaces a branch. */
export function cacheInput(site: string): string {
  return `cache:${site}`;
}

/** The step graph with the `cached` branches replaced by inputs, and the `probed` ones of the others as outputs. */
export function stepWith(model: Model, cached: ReadonlySet<string>, probed: ReadonlySet<string>): Model {
  const { graph } = model;
  const fed = new Map<Value, Value>();
  for (const { site, value } of graph.marks) if (cached.has(site)) fed.set(value, inputValue(cacheInput(site), value.type));
  const cut = rewrite(graph, (node, original) => {
    if (!original.outputs.some((value) => fed.has(value))) return undefined;
    return { nodes: [node], outputs: original.outputs.map((value, i) => fed.get(value) ?? node.outputs[i] ?? value) };
  });
  const [prediction] = cut.outputs;
  if (!prediction) throw new Error("internal: a step without a prediction");
  const probes = cut.marks.filter(({ site }) => probed.has(site) && !cached.has(site));
  const outputs = [{ name: PREDICTION, value: prediction.value }, ...probes.map(({ site, value }) => ({ name: site, value }))];
  return { ...model, graph: sweep({ ...cut, inputs: [...cut.inputs, ...fed.values()], outputs, marks: [] }) };
}
