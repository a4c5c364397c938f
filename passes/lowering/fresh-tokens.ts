/** Tokens of cached values that are computed: how they come into the value, and how they are chosen in the run. */
import { Builder, elemOf, shapeOf } from "../../ir/build.js";
import type { CacheKey } from "../../ir/dit.js";
import { constant, type Mark, type Model, opsetOf, type Value } from "../../ir/graph.js";
import { incomingTokens } from "../../ir/own-tokens.js";
import { tokenRows } from "../../ir/rows.js";
import { tensorOf } from "../../ir/tensor.js";
import { cacheName, type Fresh, type Guidance, isPartial, type Plan, type Run } from "../../schedules/index.js";

/** Where the tokens of a value are. */
interface FreshPlace {
  /** The axis that counts them, where it is not the one in front of the channels. */
  readonly axis: number | undefined;
  readonly anyBatch: boolean;
  /** Their numbers, [batch, tokens, 1], where they are chosen in the run. */
  readonly chosen: Value | undefined;
}

/**
 * The forecast with tokens in it that are computed. `slice-tokens` makes that of their computation that it needs. Where the others move with them,
 * the result is forecast + move · (computed − forecast), in which a computed token moves by all of its own surprise.
 */
export function refreshed(build: Builder, forecast: Value, own: Value, { tokens, count, move }: Fresh, where: FreshPlace): Value {
  const { anyBatch } = where;
  if (!tokens) return withChoice(build, forecast, own, where);
  const { axis, at } = tokenRows(own, count, tokens, where.axis);
  const fresh = build.gather(own, axis, at, `${own.name}_fresh`);
  if (!move) return build.withRows(forecast, axis, at, fresh, anyBatch, `${own.name}_refreshed`);
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

/** The same with tokens that are chosen in the run. */
function withChoice(build: Builder, forecast: Value, own: Value, { chosen, axis = 1, anyBatch }: FreshPlace): Value {
  if (!chosen) throw new Error(`internal: no tokens of '${own.name}' have been chosen`);
  const axes = shapeOf(own).map((_, i) => i);
  const turn = [0, axis, ...axes.filter((i) => i !== 0 && i !== axis)];
  const turned = (value: Value, perm: readonly number[], name: string): Value => (axis === 1 ? value : build.transpose(value, perm, name));
  const fresh = build.gatherChosen(turned(own, turn, `${own.name}_turned`), chosen, `${own.name}_fresh`);
  const mixed = build.withChosen(turned(forecast, turn, `${own.name}_forecast_turned`), chosen, fresh, anyBatch, `${own.name}_refreshed`);
  const back = axes.map((i) => turn.indexOf(i));
  return turned(mixed, back, `${own.name}_turned_back`);
}

/** The choices of tokens in a run: those of which what comes into the branch has changed most since they were computed. */
export class Choices {
  private readonly incoming = new Map<Value, Mark[]>();
  /** By cache: what came in when each token was computed last. */
  private readonly seen = new Map<string, Value>();
  private readonly chosen = new Map<string, Value>();
  private readonly opset: number;

  constructor(
    model: Model,
    private readonly run: Run,
    private readonly plan: Plan,
  ) {
    this.opset = opsetOf(model);
    const choosing = new Set<string>();
    for (const [key, row] of plan.cells) if (row.some((cell) => isPartial(cell) && !cell.fresh.tokens)) choosing.add(cacheName(key));
    if (choosing.size === 0) return;
    const counts = new Map(run.caches.map(({ site, tokens }) => [site, tokens?.count]));
    for (const [mark, value] of incomingTokens(model, (site) => counts.get(site)))
      if (choosing.has(cacheName(mark))) this.incoming.set(value, [...(this.incoming.get(value) ?? []), mark]);
  }

  /** What was chosen for a cache at a step. */
  at(key: CacheKey, step: number): Value | undefined {
    return this.chosen.get(`${cacheName(key)} at ${step}`);
  }

  /** Chooses for the branches that a value of the old graph comes into; `own` is the same value in the new one. */
  meet(build: Builder, original: Value, own: Value): void {
    const { guidance, anyBatch = false } = this.run;
    for (const mark of this.incoming.get(original) ?? []) {
      const name = cacheName(mark);
      const cell = this.plan.cells.get(mark)?.[mark.step];
      const before = this.seen.get(name);
      if (cell?.kind === "compute") this.seen.set(name, own);
      if (!cell || !before || !isPartial(cell)) continue;
      // Of the half that was not called nothing is known until all is computed again.
      if ((shapeOf(before)[0] ?? 0) < (shapeOf(own)[0] ?? 0)) {
        this.seen.delete(name);
        continue;
      }
      const { fresh } = cell;
      const seen = condOf(build, before, own, guidance);
      if (fresh.tokens) {
        const { axis, at } = tokenRows(own, fresh.count, fresh.tokens);
        const now = build.gather(own, axis, at, `${own.name}_met`);
        this.seen.set(name, build.withRows(seen, axis, at, now, anyBatch, `${own.name}_seen`));
        continue;
      }
      const chosen = changed(build, own, seen, fresh.size, this.opset);
      this.chosen.set(`${name} at ${mark.step}`, chosen);
      this.seen.set(name, build.withChosen(seen, chosen, build.gatherChosen(own, chosen, `${own.name}_met`), anyBatch, `${own.name}_seen`));
    }
  }
}

/** The numbers of the tokens, [batch, size, 1], with the largest mean of |now − before| over channels; both are [batch, tokens, channels]. */
function changed(build: Builder, now: Value, before: Value, size: number, opset: number): Value {
  const name = `${now.name}_change`;
  const type = { elem: "float", shape: shapeOf(now) } as const;
  const [a, b] = [build.cast(now, "float", `${name}_now`), build.cast(before, "float", `${name}_before`)];
  const sizes = build.op("Abs", [build.op("Sub", [a, b], name, type)], `${name}_size`, type);
  return build.largest(build.reduce("ReduceMean", sizes, [2], opset, `${name}_mean`), 1, size, `${name}_chosen`);
}

/** The conditional half of a cached value, if the reading step only calls that half; else the whole value. */
export function condOf(build: Builder, read: Value, reader: Value, { order }: Guidance): Value {
  const [all, rows] = [read.type?.shape?.[0], reader.type?.shape?.[0]];
  if (typeof rows !== "number" || all === rows) return read;
  const from = order.indexOf("cond") * rows;
  return build.slice(read, 0, from, from + rows, `${read.name}_cond`);
}
