/**
 * Cached branches in a loop: the nodes that only they need are moved into an `If`,
 * whose other side reads values of earlier iterations.
 */
import { operands } from "../../ir/analysis.js";
import { Builder, elemOf, shapeOf } from "../../ir/build.js";
import { branchOwners } from "../../ir/cost.js";
import { type Attribute, constant, type Graph, makeNode, type Mark, type Node, type Value } from "../../ir/graph.js";
import { sweep } from "../../ir/rewrite.js";
import { tensorOf } from "../../ir/tensor.js";
import { cacheName, type Plan } from "../../schedules/index.js";
import { clone, operandsAt } from "../lowering/copy.js";
import type { Iteration } from "./iteration.js";
import { Site } from "./site.js";

/** A value that the loop carries: `input` comes from the previous iteration, `output` goes to the next. */
export interface Carried {
  readonly input: Value;
  readonly output: Value;
}

export interface Decided {
  readonly nodes: readonly Node[];
  /** In the order of the outputs of the original body. */
  readonly outputs: readonly Value[];
  readonly carried: readonly Carried[];
}

/** The body of a loop in which the plan decides row by row whether a cached branch is computed. */
export function decideBranches(body: Graph, cells: Plan["cells"], step: Iteration, build: Builder): Decided {
  const marks = body.marks.filter((mark) => cells.get(mark)?.some(({ kind }) => kind === "terms"));
  const graph = sweep({ ...body, marks });
  const sites = new Map(graph.marks.map((mark) => [mark, new Site(cacheName(mark), mark.value, cells.get(mark) ?? [])]));
  const decisions = new Decisions(step, build);
  for (const unit of inOrder(unitsOf(graph))) {
    const owners = unit.marks.flatMap((mark) => sites.get(mark) ?? []);
    if (owners.length === 0) decisions.copy(unit.nodes, build);
    else decisions.decide(unit, owners);
  }
  return { nodes: build.nodes, outputs: graph.outputs.map(({ value }) => decisions.at(value)), carried: decisions.carried };
}

/** Nodes that are computed at the same steps: a single node that is always computed, or all nodes that only the same sites need. */
interface Unit {
  readonly marks: readonly Mark[];
  readonly nodes: Node[];
  /** Results that other units or the outputs read. */
  readonly results: Set<Value>;
  /** The units whose results it reads. */
  readonly reads: Set<Unit>;
}

function unitsOf(graph: Graph): readonly Unit[] {
  const owners = branchOwners(graph);
  const groups = new Map<string, Unit>();
  const unitOf = new Map<Node, Unit>();
  for (const node of graph.nodes) {
    const marks = [...(owners.get(node) ?? [])].sort((a, b) => (cacheName(a) < cacheName(b) ? -1 : 1));
    const key = marks.map(cacheName).join();
    const unit = groups.get(key) ?? { marks, nodes: [], results: new Set(), reads: new Set() };
    if (marks.length > 0) groups.set(key, unit);
    unit.nodes.push(node);
    unitOf.set(node, unit);
    for (const value of operands(node)) {
      const from = value.producer && unitOf.get(value.producer);
      if (!from || from === unit) continue;
      from.results.add(value);
      unit.reads.add(from);
    }
  }
  for (const { value } of graph.outputs) if (value.producer) unitOf.get(value.producer)?.results.add(value);
  return [...new Set(unitOf.values())];
}

/**
 * Units in topological order. There is one: nodes that lead to the value of a site do not depend on that value, and a unit of several
 * sites leads to all of them.
 */
function inOrder(units: readonly Unit[]): readonly Unit[] {
  const waiting = new Map(units.map((unit) => [unit, unit.reads.size]));
  const readers = new Map<Unit, Unit[]>(units.map((unit) => [unit, []]));
  for (const unit of units) for (const read of unit.reads) readers.get(read)?.push(unit);
  const order = units.filter(({ reads }) => reads.size === 0);
  // The list grows while it is walked.
  for (const unit of order) {
    for (const reader of readers.get(unit) ?? []) {
      const left = (waiting.get(reader) ?? 0) - 1;
      waiting.set(reader, left);
      if (left === 0) order.push(reader);
    }
  }
  return order;
}

/** The results of both sides of an `If`, of the same types. */
interface Alternatives {
  readonly then: readonly Value[];
  readonly otherwise: readonly Value[];
}

class Decisions {
  readonly carried: Carried[] = [];
  private readonly current = new Map<Value, Value>();
  /** Condition values, by the rows in which they are true. */
  private readonly conditions = new Map<string, Value>();

  constructor(
    private readonly step: Iteration,
    private readonly build: Builder,
  ) {}

  /** The value in the new body that replaces one of the original body. */
  at(value: Value): Value {
    return this.current.get(value) ?? value;
  }

  copy(nodes: readonly Node[], into: Builder): void {
    for (const node of nodes) {
      const made = clone(
        node,
        operandsAt(node, (value) => this.at(value)),
      );
      into.nodes.push(made);
      for (const [i, output] of node.outputs.entries()) this.current.set(output, made.outputs[i] ?? output);
    }
  }

  /**
   * Places a unit in an `If`: it is computed if any of its sites is.
   * If its sites are all computed at the same steps, this `If` decides for them too.
   */
  decide({ nodes, results }: Unit, owners: readonly Site[]): void {
    const [then, otherwise] = [new Builder(), new Builder()];
    this.copy(nodes, then);
    const values = [...results];
    const siteOf = new Map(owners.map((site) => [site.value, site]));
    const computes = this.step.rows.map((row) => owners.some((site) => site.computes[row]));
    const isAlike = owners.every((site) => site.computes.every((own, row) => own === computes[row]));
    const alternatives = values.map((value): Alternatives => {
      const site = isAlike ? siteOf.get(value) : undefined;
      return site ? this.alternativesOf(site, this.at(value), otherwise) : { then: [this.at(value)], otherwise: [zeros(otherwise, value)] };
    });
    const chosen = this.addIf(computes, then, otherwise, alternatives);
    for (const [i, value] of values.entries()) {
      const site = siteOf.get(value);
      const [made = value, ...kept] = chosen[i] ?? [];
      if (!site) this.current.set(value, made);
      else if (isAlike) this.settle(site, made, kept);
      else this.decideSite(site, made);
    }
  }

  /** Decides a site by an `If` of its own, as its value is also computed in rows where only other sites need the unit. */
  private decideSite(site: Site, value: Value): void {
    const otherwise = new Builder();
    const [[made = value, ...kept] = []] = this.addIf(site.computes, new Builder(), otherwise, [
      this.alternativesOf(site, value, otherwise),
    ]);
    this.settle(site, made, kept);
  }

  /** Both results for the value of a site, followed by the values that the next iteration keeps, unless that is just the value itself. */
  private alternativesOf(site: Site, value: Value, otherwise: Builder): Alternatives {
    const forecast = site.forecast(this.step.within(otherwise), otherwise);
    if (site.isPureReuse) return { then: [value], otherwise: [forecast] };
    return { then: [value, value, ...site.kept.slice(0, -1)], otherwise: [forecast, ...site.kept] };
  }

  private settle(site: Site, value: Value, kept: readonly Value[]): void {
    this.current.set(site.value, value);
    for (const [i, input] of site.kept.entries()) this.carried.push({ input, output: kept[i] ?? value });
  }

  private addIf(
    computes: readonly boolean[],
    then: Builder,
    otherwise: Builder,
    alternatives: readonly Alternatives[],
  ): readonly (readonly Value[])[] {
    const side = (name: string, { nodes }: Builder, values: readonly Value[]): readonly [string, Attribute] => {
      const outputs = values.map((value) => ({ name: value.name, value }));
      return [name, { kind: "graph", value: { name, inputs: [], outputs, nodes, marks: [] } }];
    };
    const sides = [
      side("then_branch", then, alternatives.flatMap((each) => each.then)),
      side("else_branch", otherwise, alternatives.flatMap((each) => each.otherwise)),
    ]; // prettier-ignore
    const [label = ""] = alternatives.flatMap((each) => each.then.map(({ name }) => name));
    const node = makeNode({
      opType: "If",
      name: `${label}/if`,
      inputs: [this.condition(computes)],
      outputs: alternatives.flatMap((each) => each.then.map(({ name, type }) => ({ name: `${name}_chosen`, type }))),
      attributes: new Map(sides),
    });
    this.build.nodes.push(node);
    let given = 0;
    return alternatives.map(({ then: values }) => node.outputs.slice(given, (given += values.length)));
  }

  private condition(computes: readonly boolean[]): Value {
    const key = computes.map(Number).join("");
    const known = this.conditions.get(key);
    const condition = known ?? this.step.within(this.build).constant(`computes_${key}`, "bool", [], (row) => [Number(computes[row])]);
    this.conditions.set(key, condition);
    return condition;
  }
}

/** Zeros of the type and shape of `value`. */
export function zeros(build: Builder, value: Value): Value {
  const shape = shapeOf(value);
  const sizes = constant(`${value.name}_shape`, tensorOf("int64", [shape.length], shape));
  const zero = constant(`${value.name}_zero`, tensorOf(elemOf(value), [], [0]));
  return build.op("Expand", [zero, sizes], `${value.name}_zeros`, { elem: elemOf(value), shape });
}
