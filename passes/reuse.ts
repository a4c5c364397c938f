/**
 * Replaces the value of a branch at each cached step by a weighted sum of its values at earlier steps, with its adjustment.
 * A cache read is an edge of the graph.
 */
import { Builder, elemOf, shapeOf } from "../ir/build.js";
import { badTerm } from "../schedules/diagnostics.js";
import { constant, type Mark, type Value } from "../ir/graph.js";
import { rewrite } from "../ir/rewrite.js";
import { tensorOf } from "../ir/tensor.js";
import { CacheMap, cacheName, type Adjustment, type Cell, type Guidance } from "../schedules/index.js";
import type { Pass, PlanContext } from "./pass.js";

type CachedCell = Extract<Cell, { readonly kind: "terms" }>;

export default {
  name: "reuse",
  summary: "let cached branches read earlier values",
  preserves: "plan",
  // A cached cell has no value of its own any more.
  takesMarks: true,
  run(model, { run, plan }) {
    const { graph } = model;
    const cached = new Map<Value, { readonly mark: Mark; readonly cell: CachedCell }>();
    const marked = new CacheMap<Map<number, Value>>();
    const cellOf = (mark: Mark): Cell | undefined => plan.cells.get(mark)?.[mark.step];
    for (const mark of graph.marks) {
      marked.set(mark, (marked.get(mark) ?? new Map<number, Value>()).set(mark.step, mark.value));
      const cell = cellOf(mark);
      if (cell?.kind === "terms") cached.set(mark.value, { mark, cell });
    }
    if (cached.size === 0) return model;
    /** Maps values of the old graph to those of the new one, as a value that a term reads may itself have been rewritten. */
    const current = new Map<Value, Value>();
    const next = rewrite(graph, (node, original) => {
      const build = new Builder();
      const outputs = original.outputs.map((value, i) => {
        const entry = cached.get(value);
        const own = node.outputs[i] ?? value;
        if (!entry) {
          current.set(value, own);
          return own;
        }
        const { mark, cell } = entry;
        const terms = cell.terms.map(({ step, weight }) => {
          const source = marked.get(mark)?.get(step);
          const read = source && current.get(source);
          if (!read) throw badTerm(cacheName(mark), mark.step, step);
          return { value: condOf(build, read, own, run.guidance), weight };
        });
        return adjusted(build, build.weightedSum(terms, `${own.name}_forecast`), cell, own.name);
      });
      return outputs.every((value, i) => value === node.outputs[i]) ? undefined : { nodes: [node, ...build.nodes], outputs };
    });
    // A cached cell has no value of its own any more.
    const marks = next.marks.filter((mark) => cellOf(mark)?.kind !== "terms");
    return { ...model, graph: { ...next, marks } };
  },
} satisfies Pass<PlanContext>;

/** The conditional half of a cached value, if the reading step only calls that half; else the whole value. */
function condOf(build: Builder, read: Value, reader: Value, { order }: Guidance): Value {
  const [all, rows] = [read.type?.shape?.[0], reader.type?.shape?.[0]];
  if (typeof rows !== "number" || all === rows) return read;
  const from = order.indexOf("cond") * rows;
  return build.slice(read, 0, from, from + rows, `${read.name}_cond`);
}

/** scale · value + shift along the last axis, in the value's own type. */
function adjusted(build: Builder, value: Value, { scale, shift }: Adjustment, name: string): Value {
  const type = { elem: elemOf(value), shape: shapeOf(value) };
  const vector = (part: string, numbers: Float32Array): Value =>
    constant(`${name}_${part}`, tensorOf(type.elem, [numbers.length], numbers));
  const scaled = scale ? build.op("Mul", [value, vector("scale", scale)], `${name}_scaled`, type) : value;
  return shift ? build.op("Add", [scaled, vector("shift", shift)], `${name}_shifted`, type) : scaled;
}
