/**
 * Adds sums up in the order in which their terms are ready.
 *
 * Where neighbouring branches are cached, nobody reads the stream between them but the next addition: x + g₁F₁ + g₂F₂ + … is
 * one sum. All of it but x has been known since the step that computed the F, so it is added up there: every product right
 * behind its branch, into one value that waits for x. If no other step reads the F, that one is kept in place of all of them.
 *
 * So it is where nodes run as ONNX Runtime runs them (`executionOrder`): the additions of a sum stand behind all of its terms,
 * so that the runtime, when it comes to a term, has added up the ones before it.
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
  /** The same in the new graph, which they are in no more. */
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

/** One addition after the other, of values that have the type of `sum`, whose name the last one takes. */
function addUp(build: Builder, terms: readonly Value[], { name, type }: Value): Value {
  return terms.reduce((sum, term, i) => {
    if (!type) throw new Error(`internal: '${name}' has no type`);
    return build.op("Add", [sum, term], i === terms.length - 1 ? name : `${name}_sum${i}`, type);
  });
}

/** When values are known: the place of the latest node in front of them that takes time. */
class Readiness {
  private readonly since = new Map<Node, number>();

  /** Nodes come in order. */
  add(node: Node): void {
    const isCheap = isElementwise(node) || isDataMovement(node) || isOp(node, "Slice");
    this.since.set(node, isCheap ? Math.max(...operands(node).map((value) => this.of(value))) : this.since.size);
  }

  of({ producer }: Value): number {
    return (producer && this.since.get(producer)) ?? -1;
  }
}

/** What a sum adds up, by way of the sums in `open`. */
function summandsOf(sum: Node, open: ReadonlySet<Node>): Value[] {
  const terms: Value[] = [];
  const pending = operands(sum).reverse();
  for (let value = pending.pop(); value; value = pending.pop()) {
    if (value.producer && open.has(value.producer)) pending.push(...operands(value.producer).reverse());
    else terms.push(value);
  }
  return terms;
}

/** Sums that nobody reads but one other. */
function innerSums(graph: Graph): ReadonlySet<Node> {
  const readers = uses(graph);
  const outputs = new Set(graph.outputs.map(({ value }) => value));
  return new Set(
    graph.nodes.filter((node) => {
      if (!isSumOfEqualTypes(node) || outputs.has(only(node))) return false;
      const [reader, ...more] = readers.get(only(node)) ?? [];
      return reader !== undefined && more.length === 0 && isSumOfEqualTypes(reader);
    }),
  );
}

/** Of two values of the same type, none of which is spread over the other. */
function isSumOfEqualTypes(node: Node): boolean {
  if (!isOp(node, "Add")) return false;
  const { type } = only(node);
  return type?.shape !== undefined && node.inputs.every((value) => sameType(value?.type, type));
}
