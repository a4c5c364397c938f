/**
 * Replaces the value of a branch at each cached step by a weighted sum of its values at earlier steps, with its adjustment, and with the tokens in
 * it that the plan computes. A cache read is an edge of the graph.
 */
import { Builder, elemOf, shapeOf } from "../ir/build.js";
import { badTerm } from "../schedules/diagnostics.js";
import { constant, type Mark, type Value } from "../ir/graph.js";
import { rewrite } from "../ir/rewrite.js";
import { tokenRows } from "../ir/site-tokens.js";
import { tensorOf } from "../ir/tensor.js";
import { type Adjustment, type CachedCell, CacheMap, cacheName, type Cell, type Fresh, type Guidance } from "../schedules/index.js";
import type { Pass, PlanContext } from "./pass.js";

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
        const forecast = adjusted(build, build.weightedSum(terms, `${own.name}_forecast`), cell, own.name);
        const result = cell.fresh ? refreshed(build, forecast, own, cell.fresh) : forecast;
        current.set(value, result);
        return result;
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

/**
 * The forecast with tokens in it that are computed. `slice-tokens` makes that of their computation that it needs. Where the others move with them,
 * the result is forecast + move · (computed − forecast), in which a computed token moves by all of its own surprise.
 */
function refreshed(build: Builder, forecast: Value, own: Value, { tokens, count, move }: Fresh): Value {
  const { axis, at } = tokenRows(own, count, tokens);
  const fresh = build.gather(own, axis, at, `${own.name}_fresh`);
  if (!move) return build.withRows(forecast, axis, at, fresh, `${own.name}_refreshed`);
  const type = { elem: elemOf(own), shape: shapeOf(own) };
  const surprise = build.op("Sub", [fresh, build.gather(forecast, axis, at, `${own.name}_stale`)], `${own.name}_surprise`, {
    elem: type.elem,
    shape: shapeOf(fresh),
  });
  const places = new Map(tokens.map((token, place) => [token, place]));
  const weights = move.map((weight, i) => {
    const place = places.get(Math.floor(i / tokens.length));
    return place === undefined ? weight : Number(place === i % tokens.length);
  });
  const matrix = constant(`${own.name}_move`, tensorOf(type.elem, [count, tokens.length], weights));
  // An axis that counts the tokens of each row of the batch is taken apart for the product.
  const channels = type.shape.at(-1) ?? 1;
  const isFlat = type.shape.length === 2;
  const repeats = (type.shape[axis] ?? count) / count;
  const apart = isFlat ? build.reshape(surprise, [repeats, tokens.length, channels], `${own.name}_apart`) : surprise;
  const moved = build.op("MatMul", [matrix, apart], `${own.name}_moved`, {
    elem: type.elem,
    shape: isFlat ? [repeats, count, channels] : type.shape,
  });
  return build.op(
    "Add",
    [forecast, isFlat ? build.reshape(moved, type.shape, `${own.name}_joined`) : moved],
    `${own.name}_refreshed`,
    type,
  );
}

/** scale · value + shift along the last axis, in the value's own type. */
function adjusted(build: Builder, value: Value, { scale, shift }: Adjustment, name: string): Value {
  const type = { elem: elemOf(value), shape: shapeOf(value) };
  const vector = (part: string, numbers: Float32Array): Value =>
    constant(`${name}_${part}`, tensorOf(type.elem, [numbers.length], numbers));
  const scaled = scale ? build.op("Mul", [value, vector("scale", scale)], `${name}_scaled`, type) : value;
  return shift ? build.op("Add", [scaled, vector("shift", shift)], `${name}_shifted`, type) : scaled;
}
