/** Cuts a whole run into parts that run one after the other: what a later part needs of an earlier one goes out of it and in again. */
import { operands } from "../../ir/analysis.js";
import { type Graph, inputValue, type Model, type Node, type Port, type Value } from "../../ir/graph.js";
import { rewrite } from "../../ir/rewrite.js";

/**
 * Models that give the run's outputs when they run in turn. Each ends with one of `stops`, outputs of the model in the order in which they
 * are ready, but for the last. A node is in the first part whose end needs it, and in the last one if none does. Values that pass from part
 * to part are outputs and inputs of the same name; inputs of the run keep theirs.
 */
export function segmented(model: Model, stops: readonly string[]): readonly Model[] {
  const { graph } = model;
  const partOf = partsOf(graph, stops);
  const parts = Array.from({ length: stops.length + 1 }, () => ({ nodes: new Array<Node>(), reads: new Set<Value>() }));
  for (const node of graph.nodes) {
    const part = parts[partOf(node)];
    part?.nodes.push(node);
    for (const value of operands(node)) if (!value.data) part?.reads.add(value);
  }
  const isFrom = ({ producer }: Value, part: number): boolean => producer !== undefined && partOf(producer) === part;
  const isOutside = (value: Value, part: number): boolean => value.producer !== undefined && !isFrom(value, part);
  const carried = namesOf(graph, new Set(parts.flatMap(({ reads }, i) => [...reads].filter((value) => isOutside(value, i)))));
  return parts.map(({ nodes, reads }, i) => {
    const outside = new Map(
      [...carried]
        .filter(([value]) => reads.has(value) && isOutside(value, i))
        .map(([value, name]) => [value, inputValue(name, value.type)]),
    );
    const ends = graph.outputs.filter(({ value }) => (value.producer ? isFrom(value, i) : i === parts.length - 1));
    const given = new Set(ends.map(({ value }) => value));
    const passed = [...carried].filter(([value]) => isFrom(value, i) && !given.has(value));
    const outputs: readonly Port[] = [...ends, ...passed.map(([value, name]) => ({ name, value }))];
    const inputs = [...graph.inputs.filter((input) => reads.has(input) || given.has(input)), ...outside.keys()];
    const whole = { ...graph, name: `${graph.name}_${i + 1}`, inputs, outputs, nodes, marks: [] };
    return { ...model, dit: undefined, graph: rewrite(whole, () => undefined, outside) };
  });
}

/** The part that each node is in. */
function partsOf(graph: Graph, stops: readonly string[]): (node: Node) => number {
  const parts = new Map<Node, number>();
  for (const [part, stop] of stops.entries()) {
    const open = graph.outputs.filter(({ name }) => name === stop).map(({ value }) => value);
    for (let value = open.pop(); value; value = open.pop()) {
      const { producer } = value;
      if (!producer || parts.has(producer)) continue;
      parts.set(producer, part);
      open.push(...operands(producer));
    }
  }
  return (node) => parts.get(node) ?? stops.length;
}

/** Names for values that pass from part to part: those of outputs that they are, or their own, with a number behind one that is taken. */
function namesOf({ inputs, outputs }: Graph, values: ReadonlySet<Value>): ReadonlyMap<Value, string> {
  const ports = new Map(outputs.map(({ name, value }) => [value, name]));
  const taken = new Set([...inputs.map(({ name }) => name), ...ports.values()]);
  return new Map(
    Array.from(values, (value) => {
      let name = ports.get(value) ?? value.name;
      for (let count = 1; !ports.has(value) && taken.has(name); count++) name = `${value.name}_${count}`;
      taken.add(name);
      return [value, name];
    }),
  );
}
