/**
 * Replaces the value of a branch at each cached step by a weighted sum of its values at earlier steps, with its adjustment, and with the tokens in
 * it that the plan computes. A cache read is an edge of the graph.
 */
import { ATTENDED, attendedTokens } from "../ir/own-tokens.js";
import { Builder, elemOf, shapeOf } from "../ir/build.js";
import type { CacheKey } from "../ir/dit.js";
import { badTerm } from "../schedules/diagnostics.js";
import { constant, type Mark, type Model, type Value } from "../ir/graph.js";
import { rewrite } from "../ir/rewrite.js";
import { tensorOf } from "../ir/tensor.js";
import { type Adjustment, type CachedCell, cacheName, type Fresh, isPartial, type Plan, type Run } from "../schedules/index.js";
import { Choices, condOf, refreshed } from "./lowering/fresh-tokens.js";
import type { Pass, PlanContext } from "./pass.js";

export default {
  name: "reuse",
  summary: "let cached branches read earlier values",
  preserves: "plan",
  // A cached cell has no value of its own any more.
  takesMarks: true,
  run(model, { run, plan }) {
    const { graph } = model;
    const caches = cachedIn(model, run, plan);
    const cached = new Map<Value | undefined, Omit<Cache, "cells"> & { readonly cell: CachedCell; readonly step: number }>();
    for (const { cells, ...cache } of caches)
      for (const [step, cell] of cells) cached.set(cache.values.get(step), { ...cache, cell, step });
    if (cached.size === 0) return model;
    /** Maps values of the old graph to those of the new one, as a value that a term reads may itself have been rewritten. */
    const current = new Map<Value, Value>();
    const choices = new Choices(model, run, plan);
    const next = rewrite(graph, (node, original) => {
      const build = new Builder();
      const outputs = original.outputs.map((value, i) => {
        const entry = cached.get(value);
        const own = node.outputs[i] ?? value;
        current.set(value, own);
        if (!entry) return own;
        const { values, cell, step, axis, key } = entry;
        const terms = cell.terms.map(({ step: from, weight }) => {
          const source = values.get(from);
          const read = source && current.get(source);
          if (!read) throw badTerm(cacheName(key), step, from);
          return { value: condOf(build, read, own, run.guidance), weight };
        });
        const forecast = adjusted(build, build.weightedSum(terms, `${own.name}_forecast`), cell, own.name);
        const where = { axis, anyBatch: run.anyBatch ?? false, chosen: choices.at(key, step) };
        const result = cell.fresh ? refreshed(build, forecast, own, cell.fresh, where) : forecast;
        current.set(value, result);
        return result;
      });
      for (const [i, value] of original.outputs.entries()) choices.meet(build, value, outputs[i] ?? value);
      return build.nodes.length === 0 && outputs.every((value, i) => value === node.outputs[i])
        ? undefined
        : { nodes: [node, ...build.nodes], outputs };
    });
    // A cached cell has no value of its own any more.
    const marks = next.marks.filter((mark) => plan.cells.get(mark)?.[mark.step]?.kind !== "terms");
    return { ...model, graph: { ...next, marks } };
  },
} satisfies Pass<PlanContext>;

/** Values of the same kind at the steps of a run, and the cells of those that are cached, by step. */
interface Cache {
  readonly key: CacheKey;
  readonly values: Map<number, Value>;
  readonly cells: Map<number, CachedCell>;
  /** The axis that counts tokens, where it is not the one in front of the channels. */
  readonly axis?: number | undefined;
}

/** What the plan caches: the values of branches, and keys and values of attention at cells that keep them. */
function cachedIn(model: Model, run: Run, plan: Plan): readonly Cache[] {
  const caches = new Map<string, Cache>();
  const add = (name: string, mark: Mark, value: Value, cell: CachedCell | undefined, axis?: number): void => {
    const cache = caches.get(name) ?? { key: mark, values: new Map<number, Value>(), cells: new Map<number, CachedCell>(), axis };
    caches.set(name, cache);
    cache.values.set(mark.step, value);
    if (cell) cache.cells.set(mark.step, cell);
  };
  const counts = new Map(run.caches.map(({ site, tokens }) => [site, tokens?.count]));
  const keepsKeys = [...plan.cells].some(([, row]) => row.some((cell) => isPartial(cell) && cell.fresh.keepsKeys));
  const attended = keepsKeys ? attendedTokens(model, (site) => counts.get(site)) : undefined;
  for (const mark of model.graph.marks) {
    const cell = plan.cells.get(mark)?.[mark.step];
    add(cacheName(mark), mark, mark.value, cell?.kind === "terms" ? cell : undefined);
    const own = attended?.get(mark);
    if (!own || !cell) continue;
    const kept = isPartial(cell) && cell.fresh.keepsKeys ? keptKeys(cell) : undefined;
    for (const part of ATTENDED) add(`${cacheName(mark)}/${part}`, mark, own[part].value, kept, own[part].axis);
  }
  return [...caches.values()];
}

/** The cell of keys and values: neither scaled nor moved, as these are of what the branch makes of them. */
function keptKeys({ kind, terms, fresh }: CachedCell & { readonly fresh: Fresh }): CachedCell {
  return { kind, terms, fresh: { ...fresh, move: undefined } };
}

/** scale · value + shift along the last axis, in the value's own type. */
function adjusted(build: Builder, value: Value, { scale, shift }: Adjustment, name: string): Value {
  const type = { elem: elemOf(value), shape: shapeOf(value) };
  const vector = (part: string, numbers: Float32Array): Value =>
    constant(`${name}_${part}`, tensorOf(type.elem, [numbers.length], numbers));
  const scaled = scale ? build.op("Mul", [value, vector("scale", scale)], `${name}_scaled`, type) : value;
  return shift ? build.op("Add", [scaled, vector("shift", shift)], `${name}_shifted`, type) : scaled;
}
