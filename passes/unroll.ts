/**
 * One step becomes the whole run: the part that depends on the latent is cloned once per row of the sampler's table, and
 * the sampler's sums and the guidance are wired between the copies.
 *
 * Everything else is hoisted in front of the first step, by what it depends on:
 *   conditions or nothing    one copy for the whole run;
 *   time                     one copy, with one row per step where the nodes are row-wise, else one copy per step;
 *   time and conditions      one copy, with one row per step and latent row.
 * Steps read their rows of it. With the timesteps known, `fold` turns the time part into data.
 */
import { dependence } from "../ir/analysis.js";
import { Builder, elemOf, shapeOf } from "../ir/build.js";
import { guidanceNotBuilt, reservedName } from "../ir/diagnostics.js";
import { LATENT, TIME } from "../ir/dit.js";
import { constant, ditView, inputValue, makeNode, type Mark, type Model, type Node, type Value } from "../ir/graph.js";
import { isElementwise } from "../ir/ops.js";
import { rowOperands, withRows } from "../ir/rows.js";
import { tensorOf } from "../ir/tensor.js";
import { elementCount, type TensorType } from "../ir/types.js";
import type { SamplerTable } from "../schedules/index.js";
import type { Pass, PassContext } from "./index.js";

export default {
  name: "unroll",
  summary: "clone the step once per row of the sampler and wire them",
  preserves: "rounding",
  run(model, context) {
    if (!context.plan) throw new Error("internal: unroll needs a plan");
    const { form } = context.guidance;
    if (form === "two-calls" || form === "embedded") throw guidanceNotBuilt(form);
    return new Unrolling(model, context, context.plan.table).run();
  },
} satisfies Pass;

/** What the run's result is called. */
const OUTPUT = "latent";

/** A value that holds the rows of all steps: one row a step (`perStep` 1), or one a step and latent row. */
interface AllSteps {
  readonly value: Value;
  readonly perStep: number;
}

class Unrolling {
  /** What does not depend on the latent, in front of everything. */
  private readonly prologue = new Builder();
  private readonly body = new Builder();
  private readonly inputs: Value[] = [];
  private readonly marks: Mark[] = [];
  /** Values of the step that are the same in every step, and what stands for them. */
  private readonly once = new Map<Value, Value>();
  private readonly hoisted = new Map<Value, AllSteps>();
  private readonly parts = new Map<Value, readonly Value[]>();
  private readonly latent: Value;
  private readonly timestep: Value;
  /** Rows of the latent that the network sees: twice the batch under batched guidance. */
  private readonly rows: number;

  constructor(
    private readonly model: Model,
    private readonly context: PassContext,
    private readonly table: SamplerTable,
  ) {
    const view = ditView(model);
    this.latent = this.stepInput(view.latent);
    if (view.timestep === undefined) throw new Error("internal: the model is unrolled already");
    this.timestep = this.stepInput(view.timestep);
    this.rows = shapeOf(this.latent)[0] ?? 1;
  }

  run(): Model {
    const { graph, opsets, irVersion, dit } = this.model;
    const noise = inputValue(this.latent.name, { elem: "float", shape: [this.context.batch, ...shapeOf(this.latent).slice(1)] });
    this.inputs.push(noise);
    for (const input of graph.inputs) if (input !== this.latent && input !== this.timestep) this.once.set(input, this.condition(input));
    const latent = this.sample(noise, this.hoist());
    const names = this.inputs.map(({ name }) => name);
    const clash = names.find((name, i) => name === OUTPUT || names.indexOf(name) !== i);
    if (clash !== undefined) throw reservedName(clash);
    return {
      graph: {
        name: graph.name,
        inputs: this.inputs,
        outputs: [{ name: OUTPUT, value: latent }],
        nodes: [...this.prologue.nodes, ...this.body.nodes],
        marks: this.marks,
      },
      opsets,
      irVersion,
      metadata: new Map(),
      // The run has no time input any more, so it is no step that could be lifted or unrolled again.
      dit: dit && { ...dit, timestep: undefined, prediction: OUTPUT },
    };
  }

  private stepInput(name: string): Value {
    const found = this.model.graph.inputs.find((input) => input.name === name);
    if (!found) throw new Error(`internal: the step has no input '${name}'`);
    return found;
  }

  /** A condition of the step, from the input of the artifact: under batched guidance, both halves of it. */
  private condition(input: Value): Value {
    const { batch, guidance, uncond, batched } = this.context;
    const shape = shapeOf(input);
    const halved = guidance.form === "batched" && batched.has(input.name);
    const cond = inputValue(input.name, { elem: elemOf(input), shape: halved ? [batch, ...shape.slice(1)] : shape });
    this.inputs.push(cond);
    if (!halved) return cond;
    const without = uncond.get(input.name);
    const halves = { cond, uncond: without ? constant(`${input.name}_uncond`, without) : cond };
    return this.prologue.concat(
      guidance.order.map((half) => halves[half]),
      0,
      `both/${input.name}`,
    );
  }

  /** Places what is not needed once per step, and answers with the nodes of which every step needs a copy. */
  private hoist(): StepNodes {
    const { graph } = this.model;
    const sources = new Map<Value, number>([
      [this.latent, LATENT],
      [this.timestep, TIME],
    ]);
    const dependsOn = dependence(graph, sources);
    if (shapeOf(this.timestep).length === 1 && shapeOf(this.timestep)[0] === this.rows) {
      const times = this.table.rows.map(({ timestep }) => timestep);
      this.hoisted.set(this.timestep, { value: this.time("timesteps", [times.length], times), perStep: 1 });
    }
    const nodes = { time: new Array<Node>(), latent: new Array<Node>() };
    for (const node of graph.nodes) {
      const bits = dependsOn(node.outputs[0]);
      if (bits === 0) this.keep(node);
      else if ((bits & LATENT) !== 0) nodes.latent.push(node);
      else if (!this.hoistRows(node)) nodes.time.push(node);
    }
    return nodes;
  }

  private keep(node: Node): void {
    const operands = operandsAt(node, (value) => this.onceOf(value));
    const isSame =
      operands.inputs.every((value, i) => value === node.inputs[i]) &&
      operands.captures.every(({ value }, i) => value === node.captures[i]?.value);
    const copy = isSame ? node : clone(node, operands);
    this.prologue.nodes.push(copy);
    for (const [i, output] of node.outputs.entries()) this.once.set(output, copy.outputs[i] ?? output);
  }

  private onceOf(value: Value): Value | undefined {
    return value.data ? value : this.once.get(value);
  }

  /** Computes a node for all steps at once, if it is row-wise. */
  private hoistRows(node: Node): boolean {
    const brings = rowOperands(node, this.rows, (value) => value !== undefined && this.hoisted.has(value));
    if (!brings) return false;
    const sources = node.inputs.map((value) => value && this.hoisted.get(value));
    const shared = node.inputs.map((value) => value && this.onceOf(value));
    if (node.inputs.some((value, i) => value && !sources[i] && !shared[i])) return false;
    const perStep = brings.every((rows, i) => !rows || sources[i]?.perStep === 1) ? 1 : this.rows;
    const count = this.table.rows.length * perStep;
    const inputs = node.inputs.map((value, i) => {
      const source = sources[i];
      if (!value || brings[i] !== true) return shared[i];
      if (source?.perStep === perStep) return source.value;
      // The row of a step repeats for each latent row, the rows of a condition for each step.
      const order = Array.from({ length: count }, (_, row) => (source ? Math.floor(row / perStep) : row % perStep));
      const from = source?.value ?? shared[i];
      return from && this.prologue.gatherRows(from, order, `steps/${value.name}`);
    });
    const copy = clone(node, { inputs: withRows(node, inputs, count), captures: [] }, "steps/", count);
    this.prologue.nodes.push(copy);
    for (const [i, output] of node.outputs.entries()) this.hoisted.set(output, { value: copy.outputs[i] ?? output, perStep });
    return true;
  }

  /** The sampling run; answers with its last latent. */
  private sample(noise: Value, nodes: StepNodes): Value {
    const { rows, initialScale } = this.table;
    const digits = String(rows.length - 1).length;
    const label = (k: number): string => `step${String(k).padStart(digits, "0")}`;
    const draws = this.noiseDraws(shapeOf(noise), label);
    let latent = this.body.weightedSum([{ value: noise, weight: initialScale }], `${label(0)}/latent`);
    const latents = [latent];
    const outs: Value[] = [];
    for (const [k, row] of rows.entries()) {
      const seen = this.body.weightedSum([{ value: latent, weight: row.inputScale }], `${label(k)}/scaled`);
      outs.push(this.guided(this.copyStep(nodes, k, seen, label(k)), label(k)));
      // m_k = m.x · x_k + m.out · out_k enters as its two terms: the weights merge in float64, and no m is ever computed.
      const weights = new Map<Value, number>();
      const add = (value: Value | undefined, weight: number): void => {
        if (value && weight !== 0) weights.set(value, (weights.get(value) ?? 0) + weight);
      };
      for (const { step, weight } of row.next.x) add(latents[step], weight);
      for (const { step, weight } of row.next.m) {
        add(latents[step], weight * (rows[step]?.m.x ?? 0));
        add(outs[step], weight * (rows[step]?.m.out ?? 0) * this.context.prediction.sign);
      }
      add(draws[k], row.next.noise);
      const terms = Array.from(weights, ([value, weight]) => ({ value, weight }));
      latent = this.body.weightedSum(terms, k === rows.length - 1 ? OUTPUT : `${label(k + 1)}/latent`);
      latents.push(latent);
    }
    return latent;
  }

  /** One unit normal for each row that adds noise: rows of the input `noise` ([draws, …latent]), in order. */
  private noiseDraws(shape: readonly number[], label: (k: number) => string): readonly (Value | undefined)[] {
    const draws = this.table.rows.filter(({ next }) => next.noise !== 0).length;
    if (draws === 0) return [];
    const all = inputValue("noise", { elem: "float", shape: [draws, ...shape] });
    this.inputs.push(all);
    let draw = 0;
    return this.table.rows.map(({ next }, k) => {
      if (next.noise === 0) return undefined;
      const index = constant(`draw_${draw}`, tensorOf("int64", [], [draw++]));
      return this.body.op("Gather", [all, index], `${label(k)}/noise`, { elem: "float", shape });
    });
  }

  /** The network at row `k`; answers with its output, all channels and both halves of it. */
  private copyStep(nodes: StepNodes, k: number, latent: Value, label: string): Value {
    const { graph } = this.model;
    const seen = this.context.guidance.form === "batched" ? this.body.concat([latent, latent], 0, `${label}/both`) : latent;
    const shape = shapeOf(this.timestep);
    const times = Array.from({ length: elementCount(shape) }, () => this.table.rows[k]?.timestep ?? 0);
    const own = new Map<Value, Value>([
      [this.latent, this.body.cast(seen, elemOf(this.latent), `${label}/cast`)],
      [this.timestep, this.time(`${label}/timestep`, shape, times)],
    ]);
    const spread = new Map<Value, Value>();
    const copy = (node: Node, into: Builder): void => {
      const operands = operandsAt(node, (value) => own.get(value) ?? this.rowsAt(k, value, node, label, spread) ?? this.onceOf(value));
      const made = clone(node, operands, `${label}/`);
      into.nodes.push(made);
      for (const [i, output] of node.outputs.entries()) own.set(output, made.outputs[i] ?? output);
    };
    for (const node of nodes.time) copy(node, this.prologue);
    for (const node of nodes.latent) copy(node, this.body);
    for (const { site, value } of graph.marks) {
      const here = own.get(value);
      if (here) this.marks.push({ site, step: k, value: here });
    }
    const out = graph.outputs[0] && own.get(graph.outputs[0].value);
    if (!out) throw new Error("internal: the prediction does not depend on the latent");
    return out;
  }

  /** The part of a hoisted value that belongs to step `k`: all its rows, or the one that broadcasts where the reader can do that. */
  private rowsAt(k: number, value: Value, reader: Node, label: string, spread: Map<Value, Value>): Value | undefined {
    const all = this.hoisted.get(value);
    if (!all) return undefined;
    if (all.perStep === this.rows || this.broadcasts(reader, shapeOf(value).length)) return this.partsOf(value, all)[k];
    const known = spread.get(value);
    if (known) return known;
    const rows = Array.from({ length: this.rows }, () => k);
    const made = this.prologue.gatherRows(all.value, rows, `${label}/${value.name}`);
    spread.set(value, made);
    return made;
  }

  /** A hoisted value cut into the parts of the steps, by one node for all of them. */
  private partsOf(value: Value, all: AllSteps): readonly Value[] {
    const known = this.parts.get(value);
    if (known) return known;
    const parts = this.prologue.splitRows(all.value, this.table.rows.length, `steps/${value.name}`);
    this.parts.set(value, parts);
    return parts;
  }

  /** Whether the reader gives the same result for one row of an operand as for many equal ones: another operand has as many. */
  private broadcasts(reader: Node, rank: number): boolean {
    const hasAllRows = (value: Value): boolean => {
      const shape = shapeOf(value);
      return shape.length === rank && shape[0] === this.rows && (this.hoisted.get(value)?.perStep ?? this.rows) === this.rows;
    };
    return isElementwise(reader) && reader.inputs.some((value) => value && hasAllRows(value));
  }

  /** The guided prediction, in float: uncond + scale · (cond − uncond), of the channels that are the prediction. */
  private guided(out: Value, label: string): Value {
    const { guidance, prediction, batch } = this.context;
    const { channels, channelAxis } = prediction;
    const all = this.body.cast(out, "float", `${label}/float`);
    const part = channels ? this.body.slice(all, channelAxis, channels[0], channels[1], `${label}/prediction`) : all;
    if (guidance.form !== "batched") return part;
    const half = (which: "cond" | "uncond"): Value => {
      const at = guidance.order.indexOf(which);
      return this.body.slice(part, 0, at * batch, (at + 1) * batch, `${label}/${which}`);
    };
    const terms = [
      { value: half("uncond"), weight: 1 - guidance.scale },
      { value: half("cond"), weight: guidance.scale },
    ];
    return this.body.weightedSum(terms, `${label}/guided`);
  }

  private time(name: string, shape: readonly number[], values: readonly number[]): Value {
    return constant(name, tensorOf(elemOf(this.timestep), shape, values));
  }
}

/** The nodes of which every step needs a copy. */
interface StepNodes {
  /** They depend on the time and not on the latent. */
  readonly time: readonly Node[];
  readonly latent: readonly Node[];
}

/** What a node reads, itself and in its subgraphs. */
type Operands = Pick<Node, "inputs" | "captures">;

/** The operands of a copy of `node`, from what `at` says of the original ones. */
function operandsAt(node: Node, at: (value: Value) => Value | undefined): Operands {
  const found = (value: Value): Value => {
    const here = at(value);
    if (!here) throw new Error(`internal: ${node.opType} '${node.name}' reads '${value.name}', which has not been placed`);
    return here;
  };
  return {
    inputs: node.inputs.map((value) => value && found(value)),
    captures: node.captures.map(({ name, value }) => ({ name, value: found(value) })),
  };
}

/** A node again, under another prefix, on other operands; with `rows`, on that many rows. */
function clone(node: Node, { inputs, captures }: Operands, prefix = "", rows?: number): Node {
  const resize = (type: TensorType | undefined): TensorType | undefined =>
    type?.shape && rows !== undefined ? { ...type, shape: [rows, ...type.shape.slice(1)] } : type;
  return makeNode({
    domain: node.domain,
    opType: node.opType,
    name: prefix + node.name,
    inputs,
    outputs: node.outputs.map(({ name, type }) => ({ name: prefix + name, type: resize(type) })),
    attributes: node.attributes,
    captures,
    scope: node.scope,
  });
}
