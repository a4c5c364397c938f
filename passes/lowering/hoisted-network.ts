/**
 * A network as the calls of a run see it. The part that depends on the latent is copied for every step. Everything else is hoisted in
 * front of the first step, depending on its inputs:
 *   conditions or nothing    one copy for the whole run;
 *   time                     one copy with one row per step if the nodes are row-wise, else one copy per step;
 *   time and conditions      one copy with one row per step and latent row.
 * The steps are those that call the network. Conditions with a value for each step are as those that have met the time.
 * Weights that have to be unpacked are so once for what is hoisted, and again in each step that reads them (`unpacksWeights`).
 * Steps read their rows of the hoisted values. As the timesteps are known, `fold` can turn the time part into constants. An embedded
 * guidance scale counts as time; where it is an input of the run, what follows from it is computed in front of the steps.
 */
import { dependence, operands } from "../../ir/analysis.js";
import { type Builder, elemOf, shapeOf } from "../../ir/build.js";
import { type Half, LATENT, TIME } from "../../ir/dit.js";
import { entryAt } from "../../ir/entries.js";
import { constant, ditView, type Mark, type Model, type Node, type Value } from "../../ir/graph.js";
import { isDataMovement, isElementwise, unpacksWeights } from "../../ir/ops.js";
import { rowOperands, withRows } from "./row-wise.js";
import { tensorOf } from "../../ir/tensor.js";
import { elementCount } from "../../ir/types.js";
import { halfOf, type Run } from "../../schedules/index.js";
import { clone, operandsAt } from "./copy.js";
import type { Affine, RunTimeScale } from "./run-time-scale.js";
import type { Step } from "./step.js";

/** The run that calls are placed in, and its nodes so far. */
export interface Placing {
  readonly run: Run;
  /** Nodes that do not depend on the latent, in front of all others. */
  readonly prologue: Builder;
  readonly body: Builder;
  /** The value that each half sees of a condition, by its name: inputs of the run, or constants; [rows, …] with a value for each row. */
  readonly conditions: ReadonlyMap<string, Readonly<Record<Half, Value>>>;
  /** The guidance scale, if it is an input of the run. */
  readonly scale: RunTimeScale | undefined;
  /** Nodes in the prologue that are not per step; a node that several calls share is placed once. */
  readonly kept: Set<Node>;
}

/** A value with the rows of all steps that call the network: one row per step (`perStep` is 1), or one per step and latent row. */
interface AllSteps {
  readonly value: Value;
  readonly perStep: number;
}

/** A network for calls that see the same halves, with everything hoisted that does not depend on the latent. */
export class HoistedNetwork {
  readonly marks: Mark[] = [];
  /** Maps values of the network that are the same in every step to their copies. */
  private readonly once = new Map<Value, Value>();
  private readonly hoisted = new Map<Value, AllSteps>();
  private readonly latent: Value;
  /** Inputs that have a number for each row of the sampler's table: the time, and the scale of embedded guidance. */
  private readonly timed = new Map<Value, readonly number[]>();
  /** The input for an embedded scale that the run takes at run time: that in each row. */
  private readonly scaled: Value | undefined;
  /** Conditions with a value for each row of the table: [rows, …]. */
  private readonly perStep = new Map<Value, Value>();
  /** The number of latent rows that a call sees: size of axis 0. */
  private readonly rows: number;
  /** The nodes of which every step needs a copy: `time` depends on the time or on packed weights but not on the latent, `latent` on it. */
  private readonly nodes = { time: new Array<Node>(), latent: new Array<Node>() };

  constructor(
    private readonly placing: Placing,
    private readonly model: Model,
    private readonly halves: readonly Half[],
    /** The rows of the sampler's table that call it for these halves. */
    private readonly steps: readonly number[],
  ) {
    const { latent, timestep } = ditView(model);
    this.latent = this.stepInput(latent);
    this.rows = shapeOf(this.latent)[0] ?? 1;
    const { guidance, rows, table } = placing.run;
    if (timestep !== undefined)
      this.timed.set(
        this.stepInput(timestep),
        table.rows.map((row) => row.timestep),
      );
    const scaled = guidance.input === undefined ? undefined : this.stepInput(guidance.input);
    if (placing.scale) this.scaled = scaled;
    else if (scaled)
      this.timed.set(
        scaled,
        rows.map(({ scale }) => scale),
      );
    for (const input of model.graph.inputs)
      if (input !== this.latent && input !== this.scaled && !this.timed.has(input)) this.takeCondition(input);
    this.hoist();
  }

  private stepInput(name: string): Value {
    const found = this.model.graph.inputs.find((input) => input.name === name);
    if (!found) throw new Error(`internal: the step has no input '${name}'`);
    return found;
  }

  /** Takes what the halves of the call see of a condition, concatenated along the axis of its values that counts latents, if there is one. */
  private takeCondition(input: Value): void {
    const { name } = input;
    const { run, prologue, conditions } = this.placing;
    const [seen, condition] = [conditions.get(name), run.conditions.get(name)];
    if (!seen || !condition) throw new Error(`internal: the run has no condition '${name}'`);
    const halves = condition.isBatched ? this.halves : this.halves.slice(0, 1);
    if (halves.every((half) => !condition.halves[half].perStep)) {
      const parts = halves.map((half) => seen[half]);
      this.once.set(input, prologue.concat(parts, 0, `both/${name}`));
      return;
    }
    const parts = halves.map((half) => this.inRows(seen[half], condition.halves[half].perStep));
    this.perStep.set(input, prologue.concat(parts, 1, `both/${name}`));
  }

  /** A condition's values by the rows of the table, [rows, …]; `places` says which one a row sees, if not all see the same. */
  private inRows(value: Value, places: readonly number[] | undefined): Value {
    const { run, prologue } = this.placing;
    const all = places ? value : prologue.reshape(value, [1, ...shapeOf(value)], `steps/${value.name}`);
    const order = places ?? run.rows.map(() => 0);
    const isInOrder = order.length === shapeOf(all)[0] && order.every((place, row) => place === row);
    return isInOrder ? all : prologue.gatherRows(all, order, `steps/${value.name}_rows`);
  }

  /** Places the nodes that steps share, and collects those of which every step needs a copy. */
  private hoist(): void {
    const { graph } = this.model;
    const sources = new Map<Value, number>([[this.latent, LATENT]]);
    for (const [input, numbers] of this.timed) {
      sources.set(input, TIME);
      if (this.countsRows(input)) this.hoisted.set(input, { value: this.ofSteps(input, numbers), perStep: 1 });
    }
    this.hoistScale(sources);
    for (const [input, all] of this.perStep) {
      sources.set(input, TIME);
      if (shapeOf(input).length === 0 || shapeOf(all)[1] !== this.rows) continue;
      const values = this.rowsOfSteps(all);
      const [count = 0, rows = 0, ...rest] = shapeOf(values);
      const value = this.placing.prologue.reshape(values, [count * rows, ...rest], `steps/${input.name}_together`);
      this.hoisted.set(input, { value, perStep: rows });
    }
    const dependsOn = dependence(graph, sources);
    const unpacked = new Set<Value | undefined>();
    for (const node of graph.nodes) {
      const bits = dependsOn(node.outputs[0]);
      const isUnpacked = unpacksWeights(node) || isMadeOf(unpacked, node);
      if (isUnpacked) for (const output of node.outputs) unpacked.add(output);
      // In front of a step, and not where its reader is: the runtime would unpack all of a run's weights first (`executionOrder`).
      if (isUnpacked) this.nodes.time.push(node);
      if (bits === 0) this.keep(node);
      else if ((bits & LATENT) !== 0) this.nodes.latent.push(node);
      else if (!this.hoistRows(node)) this.nodes.time.push(node);
    }
  }

  private countsRows(input: Value): boolean {
    const shape = shapeOf(input);
    return shape.length === 1 && shape[0] === this.rows;
  }

  /** An input's numbers at the steps that call the network, as a value with one row per step. */
  private ofSteps(input: Value, numbers: readonly number[]): Value {
    const own = this.steps.map((step) => entryAt(numbers, step));
    return constant(`steps/${input.name}`, tensorOf(elemOf(input), [own.length], own));
  }

  /** Places a scale that is an input of the run. It has rows as the time has, for what adds the two up; else it is a condition if it can be. */
  private hoistScale(sources: Map<Value, number>): void {
    const { scaled, placing } = this;
    if (!scaled || !placing.scale) return;
    const isRow = this.countsRows(scaled);
    if (isRow) this.hoisted.set(scaled, { value: this.rowsOfSteps(placing.scale.rowByRow(scaleOf(scaled, [1]))), perStep: 1 });
    const same = isRow ? undefined : placing.scale.inAllRows(scaleOf(scaled));
    if (same) this.once.set(scaled, same);
    else sources.set(scaled, TIME);
  }

  /** The rows of the steps that call the network, of a value with a row for each step of the run. */
  private rowsOfSteps(all: Value): Value {
    return this.steps.length === shapeOf(all)[0] ? all : this.placing.prologue.gatherRows(all, this.steps, `steps/${all.name}`);
  }

  private keep(node: Node): void {
    const read = operandsAt(node, (value) => this.onceOf(value));
    const copy = operands(node).every((value) => this.onceOf(value) === value) ? node : clone(node, read);
    if (!this.placing.kept.has(copy)) this.placing.prologue.nodes.push(copy);
    this.placing.kept.add(copy);
    for (const [i, output] of node.outputs.entries()) this.once.set(output, copy.outputs[i] ?? output);
  }

  private onceOf(value: Value): Value | undefined {
    return value.data ? value : this.once.get(value);
  }

  /** Places a row-wise node once for all steps; false if it cannot be hoisted in this way. */
  private hoistRows(node: Node): boolean {
    const { prologue } = this.placing;
    const brings = rowOperands(node, this.rows, (value) => value !== undefined && this.hoisted.has(value));
    if (!brings) return false;
    const sources = node.inputs.map((value) => value && this.hoisted.get(value));
    const shared = node.inputs.map((value) => value && this.onceOf(value));
    if (node.inputs.some((value, i) => value && !sources[i] && !shared[i])) return false;
    const perStep = brings.every((rows, i) => !rows || sources[i]?.perStep === 1) ? 1 : this.rows;
    const count = this.steps.length * perStep;
    const inputs = node.inputs.map((value, i) => {
      const source = sources[i];
      if (!value || brings[i] !== true) return shared[i];
      if (source?.perStep === perStep) return source.value;
      // The row of a step is repeated for each latent row, the rows of a condition for each step.
      const order = Array.from({ length: count }, (_, row) => (source ? Math.floor(row / perStep) : row % perStep));
      const from = source?.value ?? shared[i];
      return from && prologue.gatherRows(from, order, `steps/${value.name}`);
    });
    const copy = clone(node, { ...node, inputs: withRows(node, inputs, count) }, "steps/", count);
    prologue.nodes.push(copy);
    for (const [i, output] of node.outputs.entries()) this.hoisted.set(output, { value: copy.outputs[i] ?? output, perStep });
    return true;
  }

  /** Calls the network on a latent at a step; returns its output with all channels and all of its halves. */
  call(step: Step, latent: Value, label: string): Value {
    const { graph } = this.model;
    const { body } = this.placing;
    const seen = body.concat(
      this.halves.map(() => latent),
      0,
      `${label}/both`,
    );
    const own = new Map<Value, Value>([[this.latent, body.cast(seen, elemOf(this.latent), `${label}/cast`)]]);
    for (const [input, numbers] of this.timed) {
      const shape = shapeOf(input);
      const all = (row: number): readonly number[] => new Array<number>(elementCount(shape)).fill(entryAt(numbers, row));
      own.set(input, step.constant(`${label}/${input.name}`, elemOf(input), shape, all));
    }
    const { scaled, placing } = this;
    if (scaled && placing.scale && !this.hoisted.has(scaled) && !this.once.has(scaled))
      own.set(scaled, placing.scale.at(step, scaleOf(scaled)));
    const inOrder = placing.run.rows.map((_, row) => row);
    for (const [input, values] of this.perStep) own.set(input, step.value(values, inOrder, `${label}/${input.name}`));
    const spread = new Map<Value, Value>();
    const copy = (node: Node, into: Builder): void => {
      const operands = operandsAt(node, (value) => own.get(value) ?? this.rowsAt(step, value, node, label, spread) ?? this.onceOf(value));
      const made = clone(node, operands, `${label}/`);
      into.nodes.push(made);
      for (const [i, output] of node.outputs.entries()) own.set(output, made.outputs[i] ?? output);
    };
    for (const node of this.nodes.time) copy(node, step.early);
    for (const node of this.nodes.latent) copy(node, body);
    for (const { site, value } of graph.marks) {
      const here = own.get(value);
      if (here) this.marks.push({ site, half: halfOf(this.halves), step: step.index, value: here });
    }
    const out = graph.outputs[0] && own.get(graph.outputs[0].value);
    if (!out) throw new Error("internal: the prediction does not depend on the latent");
    return out;
  }

  /** The part of a hoisted value that belongs to a step. A single row is repeated for all latent rows, unless the reader broadcasts it. */
  private rowsAt(step: Step, value: Value, reader: Node, label: string, spread: Map<Value, Value>): Value | undefined {
    const all = this.hoisted.get(value);
    if (!all) return undefined;
    if (all.perStep === this.rows || this.broadcasts(reader, shapeOf(value).length)) return step.part(all.value, this.steps, value.name);
    const known = spread.get(value);
    if (known) return known;
    const made = step.repeated(all.value, this.steps, this.rows, `${label}/${value.name}`);
    spread.set(value, made);
    return made;
  }

  /** Whether the reader broadcasts an operand of one row, as another of its operands has all rows. */
  private broadcasts(reader: Node, rank: number): boolean {
    const hasAllRows = (value: Value): boolean => {
      const shape = shapeOf(value);
      return shape.length === rank && shape[0] === this.rows && (this.hoisted.get(value)?.perStep ?? this.rows) === this.rows;
    };
    return isElementwise(reader) && reader.inputs.some((value) => value && hasAllRows(value));
  }
}

/** The scale itself, for an input of the network. */
function scaleOf(input: Value, shape = shapeOf(input)): Affine {
  return { name: input.name, elem: elemOf(input), shape, of: (_, scale) => new Array<number>(elementCount(shape)).fill(scale) };
}

/** Whether a node moves unpacked weights, or scales them by constants, as a part of unpacking them. */
function isMadeOf(unpacked: ReadonlySet<Value | undefined>, node: Node): boolean {
  const isPart = isDataMovement(node) || isElementwise(node);
  return (
    isPart && node.inputs.some((value) => unpacked.has(value)) && node.inputs.every((value) => !value || value.data || unpacked.has(value))
  );
}
