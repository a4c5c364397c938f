/** A branch's own tokens along its way: as they come in, and as the keys and values of attention, before they are joined with those of other streams. */
import { dependence } from "./analysis.js";
import { branchOwners } from "./cost.js";
import { CONDITION, LATENT } from "./dit.js";
import { ditView, isOp, type Mark, type Model, type Node, type Value } from "./graph.js";
import { attentionOf, type Dependence, isAttentionCore } from "./ops.js";
import { isInPart, operandNeeds, type Rows, tokenRows } from "./rows.js";

/** What attention takes beside queries. */
export const ATTENDED = ["keys", "values"] as const;

/** A value, and the axis along which it counts tokens. */
export interface TokenValue {
  readonly value: Value;
  readonly axis: number;
}

export type Attended = Readonly<Record<(typeof ATTENDED)[number], TokenValue>>;

/** How many tokens a site has; undefined for sites that are not asked about. */
export type TokenCounts = (site: string) => number | undefined;

/** By mark; those of branches that do not attend to their own tokens are left out. */
export function attendedTokens(model: Model, countOf: TokenCounts): ReadonlyMap<Mark, Attended> {
  return ofBranches(model, countOf, (start, branch, count) => {
    const attended = attendedBy(start, branch);
    const isOwn = ({ value, axis }: TokenValue): boolean => value.type?.shape?.[axis] === count;
    return attended && isOwn(attended.keys) && isOwn(attended.values) ? attended : undefined;
  });
}

/** By mark, the value of the stream whose tokens, [batch, tokens, channels], become those of the branch; branches of which there are several or none are left out. */
export function incomingTokens(model: Model, countOf: TokenCounts): ReadonlyMap<Mark, Value> {
  return ofBranches(model, countOf, (start, branch, count) => {
    const found = new Set<Value>();
    walkBack(
      [start],
      branch,
      () => false,
      ({ value, rows: { axis } }) => {
        if (axis === 1 && value.type?.shape?.length === 3 && value.type.shape[1] === count && value.producer) found.add(value);
      },
    );
    const [only, ...others] = found;
    return others.length === 0 ? only : undefined;
  });
}

function ofBranches<T>(
  model: Model,
  countOf: TokenCounts,
  find: (start: Place, branch: Branch, count: number) => T | undefined,
): ReadonlyMap<Mark, T> {
  const { graph } = model;
  const { latent } = ditView(model);
  const dependsOn = dependence(graph, new Map(graph.inputs.map((input) => [input, input.name === latent ? LATENT : CONDITION])));
  const owners = branchOwners(graph);
  const found = new Map<Mark, T>();
  for (const mark of graph.marks) {
    const count = countOf(mark.site);
    if (count === undefined) continue;
    const branch: Branch = { dependsOn, has: (node) => owners.get(node)?.has(mark) ?? false };
    const made = find({ value: mark.value, rows: tokenRows(mark.value, count, [0]) }, branch, count);
    if (made !== undefined) found.set(mark, made);
  }
  return found;
}

interface Branch {
  readonly dependsOn: Dependence;
  has(node: Node): boolean;
}

/** Rows of a value. */
interface Place {
  readonly value: Value;
  readonly rows: Rows;
}

/** The way of the first token, from the end of the branch back to attention, and from there to its key and its value. */
function attendedBy(start: Place, branch: Branch): Attended | undefined {
  const found: { keys?: Place | undefined; values?: Place | undefined } = {};
  walkBack([start], branch, (node, rows, next) => {
    if (!isAttentionCore(node, branch.dependsOn)) return false;
    const [query, first, second] = coreOf(node, rows) ?? [];
    if (second) {
      found.keys ??= first;
      found.values ??= second;
    } else if (found.values) found.keys ??= first;
    else if (query && first) {
      found.values = first;
      // Scores are found behind what they weigh.
      next(query);
    }
    return true;
  });
  const [ownKeys, ownValues] = [found.keys, found.values].map((place) => place && beforeJoin(place, branch));
  const isOfLatent = [ownKeys, ownValues].every((place) => place && (branch.dependsOn(place.value) & LATENT) !== 0);
  return ownKeys && ownValues && isOfLatent ? { keys: ownKeys, values: ownValues } : undefined;
}

/** Of attention in one node: query, key and value of these rows; of a product: its left operand and these rows of what it sums over. */
function coreOf(node: Node, rows: Rows): readonly Place[] | undefined {
  const needs = operandNeeds(node, [rows]);
  const [query, ...others] = node.inputs;
  const need = needs?.[0];
  if (!query || need === undefined || need === "all") return undefined;
  const isWhole = attentionOf(node) !== undefined;
  const rank = (value: Value): number => value.type?.shape?.length ?? 0;
  const length = query.type?.shape?.[need.axis];
  const places = others.slice(0, isWhole ? 2 : 1).flatMap((value): Place[] => {
    if (!value) return [];
    // A product sums over the rows of what is weighed, and makes scores with the columns of keys that have been turned.
    const axes = isWhole ? [need.axis] : [rank(value) - 2, rank(value) - 1];
    const axis = axes.find((one) => value.type?.shape?.[one] === length && (isWhole || isTokenAxis(node, value, one)));
    return axis === undefined ? [] : [{ value, rows: { axis, at: need.at } }];
  });
  return [{ value: query, rows: need }, ...places];
}

/** Whether an axis of the right operand of a product counts tokens: that of its rows where the left operand holds a weight for each. */
function isTokenAxis(node: Node, right: Value, axis: number): boolean {
  const isWeighing = isWeights(node.inputs[0]);
  const rank = right.type?.shape?.length ?? 0;
  return axis === (isWeighing ? rank - 2 : rank - 1);
}

/** Whether a value is the result of a softmax, moved or retyped. */
function isWeights(value: Value | undefined): boolean {
  for (let at = value; at; at = at.producer?.inputs[0]) {
    if (isOp(at.producer, "Softmax")) return true;
    if (!isOp(at.producer, "Cast", "Reshape", "Transpose", "Where", "Identity")) return false;
  }
  return false;
}

/** Where tokens of several streams are joined: those of this one before that; else what it was given. */
function beforeJoin({ value, rows }: Place, branch: Branch): TokenValue | undefined {
  const joined = new Set<Value>();
  let axis = rows.axis;
  walkBack([{ value, rows }], branch, (node, own) => {
    const needs = isOp(node, "Concat") ? operandNeeds(node, [own]) : undefined;
    const places = needs?.flatMap((need, i) => (need === undefined ? [] : [node.inputs[i]])) ?? [];
    const [only] = places;
    if (!only || places.length === node.inputs.length) return isAttentionCore(node, branch.dependsOn);
    joined.add(only);
    axis = own.axis;
    return true;
  });
  const [only] = joined;
  if (joined.size > 1) return undefined;
  return only ? { value: only, axis } : { value, axis: rows.axis };
}

/** Goes back from rows of values to what they are made of, within a branch, until `stop` says so; `enter` is told what lies in front of the branch. */
function walkBack(
  from: readonly Place[],
  branch: Branch,
  stop: (node: Node, rows: Rows, next: (place: Place) => void) => boolean,
  enter: (place: Place) => void = () => undefined,
): void {
  const open = [...from];
  const seen = new Set<Value>();
  for (let place = open.pop(); place; place = open.pop()) {
    const { value, rows } = place;
    const node = value.producer;
    if (seen.has(value)) continue;
    seen.add(value);
    if (!node || !branch.has(node)) {
      enter(place);
      continue;
    }
    if (stop(node, rows, (next) => open.push(next))) continue;
    const needs = operandNeeds(
      node,
      node.outputs.map((output) => (output === value ? rows : undefined)),
    );
    if (!isInPart(needs)) continue;
    for (const [i, need] of needs.entries()) {
      const operand = node.inputs[i];
      if (operand && need !== undefined && need !== "all" && (branch.dependsOn(operand) & LATENT) !== 0)
        open.push({ value: operand, rows: need });
    }
  }
}
