/**
 * Adds up sums in the order in which their terms become available.
 *
 * If neighbouring branches are cached, only the next addition reads the stream between them: x + g₁F₁ + g₂F₂ + … is one sum. All of its
 * terms except x are known since the step that computed the F. So each product is added right after its branch, into one value that
 * waits for x. If no other step reads the F, this one value is kept in memory instead of all of them.
 *
 * This relies on the order in which ONNX Runtime runs nodes (`executionOrder`): the additions of a sum come after all of its terms in
 * the list, and the runtime then adds each term before it computes the next one.
 */
import { operands, uses } from "../ir/analysis.js";
import { Builder } from "../ir/build.js";
import { type Graph, isOp, type Node, only, type Value, withGraph } from "../ir/graph.js";
import { isDataMovement, isElementwise } from "../ir/ops.js";
import { rewrite } from "../ir/rewrite.js";
import { sameType } from "../ir/types.js";
import type { Pass } from "./pass.js";

export default {
  name: "merge",
  summary: "add sums up in the order in which their terms are ready",
  preserves: "rounding",
  isOptional: true,
  run: (model) => withGraph(model, mergeSums(model.graph)),
} satisfies Pass;

function mergeSums(graph: Graph): Graph {
  const inner = innerSums(graph);
  /** The nodes of inner sums after rewriting; the new graph does not contain them. */
  const open = new Set<Node>();
  const readiness = new Readiness();
  return rewrite(graph, (node, original) => {
    readiness.add(node);
    if (!isSumOfEqualTypes(node)) return undefined;
    if (inner.has(original)) {
      open.add(node);
      return { nodes: [], outputs: node.outputs };
    }
    const terms = summandsOf(node, open);
    if (terms.length === 2) return undefined;
    const build = new Builder();
    const total = addUp(
      build,
      terms.sort((a, b) => readiness.of(a) - readiness.of(b)),
      only(node),
    );
    for (const made of build.nodes) readiness.add(made);
    return { nodes: build.nodes, outputs: [total] };
  });
}

/** Adds the terms one after the other. The last addition takes the name of the sum; all have its type. */
function addUp(build: Builder, terms: readonly Value[], { name, type }: Value): Value {
  return terms.reduce((sum, term, i) => {
    if (!type) throw new Error(`internal: '${name}' has no type`);
    return build.op("Add", [sum, term], i === terms.length - 1 ? name : `${name}_sum${i}`, type);
  });
}

/** When a value becomes available: the position of the last expensive node that it depends on. */
class Readiness {
  private readonly since = new Map<Node, number>();

  /** Nodes come in order. */
  add(node: Node): void {
    const isCheap = isElementwise(node) || isDataMovement(node) || isOp(node, "Slice");
    this.since.set(node, isCheap ? operands(node).reduce((latest, value) => Math.max(latest, this.of(value)), -1) : this.since.size);
  }

  of({ producer }: Value): number {
    return (producer && this.since.get(producer)) ?? -1;
  }
}

/** The terms of a sum, with inner sums (those in `open`) replaced by their terms. */
function summandsOf(sum: Node, open: ReadonlySet<Node>): Value[] {
  const terms: Value[] = [];
  const pending = operands(sum).toReversed();
  for (let value = pending.pop(); value; value = pending.pop()) {
    if (value.producer && open.has(value.producer)) for (const term of operands(value.producer).toReversed()) pending.push(term);
    else terms.push(value);
  }
  return terms;
}

/** Sums whose only reader is another sum. Outputs and the values of branches are read from outside, too. */
function innerSums(graph: Graph): ReadonlySet<Node> {
  const readers = uses(graph);
  const outside = new Set([...graph.outputs, ...graph.marks].map(({ value }) => value));
  return new Set(
    graph.nodes.filter((node) => {
      if (!isSumOfEqualTypes(node) || outside.has(only(node))) return false;
      const [reader, ...more] = readers.get(only(node)) ?? [];
      return reader !== undefined && more.length === 0 && isSumOfEqualTypes(reader);
    }),
  );
}

/** Whether a node adds two values of the same type, without broadcasting. */
function isSumOfEqualTypes(node: Node): boolean {
  if (!isOp(node, "Add")) return false;
  const { type } = only(node);
  return type?.shape !== undefined && node.inputs.every((value) => sameType(value?.type, type));
}
