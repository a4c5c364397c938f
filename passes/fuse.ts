/** Replaces expressions that exporters spell out by the standard's operators for them, and removes data movement that cancels out. */
import { uses } from "../ir/analysis.js";
import { Builder } from "../ir/build.js";
import { CompilerError } from "../ir/diagnostics.js";
import { type Graph, type Node, opsetOf, type Value, withGraph } from "../ir/graph.js";
import { hasFixedShapes } from "./fusing/match.js";
import { canRaise, raised } from "./fusing/opset.js";
import { rewrite, sweep } from "../ir/rewrite.js";
import { sameType } from "../ir/types.js";
import { fuseRules } from "./fuse/index.js";
import type { FuseRule, Surroundings } from "./fuse-rule.js";
import type { Pass } from "./pass.js";

/** The newest version of the standard operator set that is emitted. */
const NEWEST_OPSET = 23;

export default {
  name: "fuse",
  summary: "write attention, norms and activations as one operator each; cancel reshapes and transposes",
  preserves: "rounding",
  isOptional: true,
  run(model, _context, count) {
    let { graph } = model;
    let opset = opsetOf(model);
    const reach = canRaise(model, NEWEST_OPSET) ? Math.max(opset, NEWEST_OPSET) : opset;
    for (const rule of fuseRules) {
      if (rule.opset > reach) continue;
      const walk = applied(graph, rule);
      count(rule.name, walk.times);
      if (walk.times === 0) continue;
      graph = sweep(walk.graph);
      opset = Math.max(opset, rule.opset);
    }
    return raised(withGraph(model, graph), opset);
  },
} satisfies Pass;

/** Applies a rule wherever it fits; returns the graph and the number of times. An error names the rule and the node. */
export function applied(graph: Graph, rule: FuseRule): { readonly graph: Graph; readonly times: number } {
  const readers = uses(graph);
  const inner = innerValues(graph, readers);
  const marked = new Set(graph.marks.map(({ value }) => value));
  const current = new Map<Value, Value>();
  let times = 0;
  const next = rewrite(graph, (node, original) => {
    const build = new Builder(original.scope);
    const [first] = original.inputs;
    const around: Surroundings = {
      build,
      isInner: (value) => value !== undefined && inner.has(value),
      siblings: () => (first ? (readers.get(first) ?? []) : []).filter(({ inputs }) => inputs[0] === first),
      now: (value) => current.get(value) ?? value,
    };
    const canApply = node.captures.length === 0 && hasFixedShapes(node);
    const made = canApply ? attempt(rule, node, around) : undefined;
    const isNew = (value: Value): boolean => value.producer !== undefined && build.nodes.includes(value.producer);
    // A branch must stay a value of its own: other readers of its replacement must not see the cached value.
    const isRefused = made?.some((value, i) => !isNew(value) && isIn(marked, original.outputs[i]) && !inner.has(value));
    const outputs = made && isRefused !== true ? made : node.outputs;
    for (const [i, output] of original.outputs.entries()) {
      const value = outputs[i];
      if (!value || !sameType(value.type, output.type))
        throw new Error(`${failureOf(rule, node)}: it changed the type of '${output.name}'`);
      current.set(output, value);
      // An existing value that replaces another one gets that one's readers too.
      if (!inner.has(output) || (outputs === made && !isNew(value) && !node.inputs.includes(value))) inner.delete(value);
      else if (outputs !== made || isNew(value)) inner.add(value);
    }
    if (outputs !== made) return undefined;
    times++;
    return { nodes: build.nodes, outputs };
  });
  return { graph: next, times };
}

/** Applies a rule to a node. Adds the names of both to an error, except to a CompilerError. */
function attempt(rule: FuseRule, node: Node, around: Surroundings): readonly Value[] | undefined {
  try {
    return rule.apply(node, around);
  } catch (error) {
    if (error instanceof CompilerError) throw error;
    throw new Error(failureOf(rule, node), { cause: error });
  }
}

function failureOf(rule: FuseRule, { opType, name }: Node): string {
  return `internal: the rule '${rule.name}' of fuse failed at ${opType} '${name}'`;
}

/** Results that exactly one node reads, once, and that are neither outputs nor marked. */
function innerValues(graph: Graph, readers: ReturnType<typeof uses>): Set<Value> {
  const inner = new Set<Value>();
  for (const [value, nodes] of readers) if (nodes.length === 1 && value.producer) inner.add(value);
  for (const { value } of [...graph.outputs, ...graph.marks]) inner.delete(value);
  return inner;
}

function isIn(values: ReadonlySet<Value>, value: Value | undefined): boolean {
  return value !== undefined && values.has(value);
}
