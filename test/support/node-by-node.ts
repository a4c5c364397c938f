/**
 * A graph run one node at a time. On the CPU the runtime computes what is of half precision in float, and between two such
 * nodes leaves the rounding out: of a graph as a whole it does not show what leaves the range of float16. Of a lone node it does.
 */
import { inputValue, makeNode, type Model, type Value } from "../../ir/graph.js";
import type { TensorData } from "../../ir/tensor.js";
import { Session, type Tensors } from "../../src/runtime/session.js";

/** The outputs of the graph by name. */
export async function runNodeByNode(model: Model, feeds: Tensors): Promise<Tensors> {
  const { graph } = model;
  const values = new Map<Value, TensorData>();
  for (const input of graph.inputs) {
    const data = feeds.get(input.name);
    if (data) values.set(input, data);
  }
  const at = (value: Value): TensorData => {
    const data = value.data ?? values.get(value);
    if (!data) throw new Error(`'${value.name}' has no value`);
    return data;
  };
  for (const node of graph.nodes) {
    const operands = new Map(
      node.inputs.flatMap((value) => (value && !value.data ? [[value, inputValue(value.name, value.type)] as const] : [])),
    );
    const copy = makeNode({ ...node, inputs: node.inputs.map((value) => (value && operands.get(value)) ?? value) });
    const outputs = copy.outputs.map((value, i) => ({ name: `output_${i}`, value }));
    const lone = { ...model, graph: { name: "node", inputs: [...operands.values()], outputs, nodes: [copy], marks: [] } };
    const session = await Session.open(lone, { optimise: "disabled", threads: 1 });
    const results = await session.run(new Map([...operands.keys()].map((value) => [value.name, at(value)])));
    await session.close();
    for (const [i, output] of node.outputs.entries()) {
      const data = results.get(`output_${i}`);
      if (data) values.set(output, data);
    }
  }
  return new Map(graph.outputs.map(({ name, value }) => [name, at(value)]));
}
