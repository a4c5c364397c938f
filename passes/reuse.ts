/** At each cached (site, step) the value becomes a weighted sum of the values of earlier steps, adjusted. A cache read is an edge. */
import { Builder, elemOf, shapeOf } from "../ir/build.js";
import { badTerm } from "../schedules/diagnostics.js";
import { constant, type Value } from "../ir/graph.js";
import { rewrite } from "../ir/rewrite.js";
import { tensorOf } from "../ir/tensor.js";
import type { Adjustment, Cell, Guidance } from "../schedules/index.js";
import type { Pass } from "./pass.js";

type CachedCell = Extract<Cell, { readonly kind: "terms" }>;

export default {
  name: "reuse",
  summary: "let cached branches read earlier values",
  preserves: "plan",
  run(model, { plan, guidance }) {
    if (!plan) throw new Error("internal: reuse needs a plan");
    const { graph } = model;
    /** What is cached at a value, and under which site. */
    const cached = new Map<Value, { readonly site: string; readonly step: number; readonly cell: CachedCell }>();
    const marked = new Map<string, Value>();
    for (const { site, step, value } of graph.marks) {
      marked.set(`${site}@${step}`, value);
      const cell = plan.cells.get(site)?.[step];
      if (cell?.kind === "terms") cached.set(value, { site, step, cell });
    }
    if (cached.size === 0) return model;
    /** Values of the new graph by those of the old one: what a term reads may itself have been rewritten. */
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
        const terms = entry.cell.terms.map(({ step, weight }) => {
          const source = marked.get(`${entry.site}@${step}`);
          const read = source && current.get(source);
          if (!read) throw badTerm(entry.site, entry.step, step);
          return { value: condOf(build, read, own, guidance), weight };
        });
        return adjusted(build, build.weightedSum(terms, `${own.name}_forecast`), entry.cell, own.name);
      });
      return outputs.every((value, i) => value === node.outputs[i]) ? undefined : { nodes: [node, ...build.nodes], outputs };
    });
    // A cached cell no longer has a value of its own.
    const marks = next.marks.filter(({ site, step }) => plan.cells.get(site)?.[step]?.kind !== "terms");
    return { ...model, graph: { ...next, marks } };
  },
} satisfies Pass;

/** What a step reads that has the conditional half alone: that half of a value of both. */
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
