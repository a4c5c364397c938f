/** The calls of the network that a run consists of, and what they see: the inputs of the run, or what stands for them. */
import { Builder, shapeOf } from "../../ir/build.js";
import { reservedName } from "../../schedules/diagnostics.js";
import { constant, ditView, inputValue, type Mark, type Model, type Node, type Value } from "../../ir/graph.js";
import type { TensorData } from "../../ir/tensor.js";
import type { TensorType } from "../../ir/types.js";
import { type Half, type SamplerTable, uncondInput } from "../../schedules/index.js";
import type { PassContext } from "../pass.js";
import type { Output } from "./guided.js";
import { Network, type Run } from "./network.js";
import type { Step } from "./step.js";

/** What the run's result is called. */
export const OUTPUT = "latent";

export class Calls implements Run {
  readonly prologue = new Builder();
  readonly body = new Builder();
  readonly conditions = new Map<string, Record<Half, Value>>();
  readonly kept: Run["kept"] = new Set();
  /** What the run is given to begin with. */
  readonly noise: Value;
  /** One unit normal for each row that adds noise, in order: [draws, …latent]; absent if there are none. */
  readonly draws: Value | undefined;
  readonly inputs: Value[] = [];
  /** By the halves that a call sees. */
  private readonly networks = new Map<string, Network>();

  constructor(
    private readonly model: Model,
    readonly context: PassContext,
    readonly table: SamplerTable,
  ) {
    const { latent: name } = ditView(model);
    const seen = model.graph.inputs.find((input) => input.name === name);
    if (!seen) throw new Error(`internal: the step has no input '${name}'`);
    const shape = [context.batch, ...shapeOf(seen).slice(1)];
    this.noise = this.given(name, { elem: "float", shape }, undefined);
    this.takeConditions();
    const draws = table.rows.filter(({ next }) => next.noise !== 0).length;
    if (draws > 0) this.draws = this.given("noise", { elem: "float", shape: [draws, ...shape] }, undefined);
    const names = this.inputs.map((input) => input.name);
    const clash = names.find((input, i) => input === OUTPUT || names.indexOf(input) !== i);
    if (clash !== undefined) throw reservedName(clash);
  }

  /** The conditions of the run, without guidance doubling; those that are fixed are constants. */
  private takeConditions(): void {
    const { batch, batched, fixed, guidance, uncond } = this.context;
    const { latent, timestep } = ditView(this.model);
    for (const { name, type } of this.model.graph.inputs) {
      if (name === latent || name === timestep || name === guidance.input) continue;
      const seen = type && batched.has(name) ? { ...type, shape: [batch, ...(type.shape ?? []).slice(1)] } : type;
      const cond = this.given(name, seen, fixed.get(name));
      const without = uncond.get(name);
      this.conditions.set(name, {
        cond,
        uncond: without ? this.given(uncondInput(name), seen, without === "input" ? undefined : without) : cond,
      });
    }
  }

  /** A constant, or without data an input of the run. */
  private given(name: string, type: TensorType | undefined, data: TensorData | undefined): Value {
    if (data) return constant(name, data);
    const input = inputValue(name, type);
    this.inputs.push(input);
    return input;
  }

  /** The network on a latent, once for each of the calls. */
  at(step: Step, calls: readonly (readonly Half[])[], latent: Value): readonly Output[] {
    return calls.map((halves) => {
      const label = halves.includes("cond") ? step.label : `${step.label}/uncond`;
      return { halves, value: this.network(halves).call(step, latent, label) };
    });
  }

  private network(halves: readonly Half[]): Network {
    const key = halves.join();
    const known = this.networks.get(key);
    if (known) return known;
    const { guidance, alone } = this.context;
    const isAlone = guidance.form === "batched" && halves.length === 1;
    if (isAlone && !alone) throw new Error("internal: there is no step for one half");
    const network = new Network(this, (isAlone && alone) || this.model, halves);
    this.networks.set(key, network);
    return network;
  }

  get marks(): readonly Mark[] {
    return [...this.networks.values()].flatMap(({ marks }) => marks);
  }

  /** The run as a model: these nodes behind the prologue. */
  finish(nodes: readonly Node[], latent: Value, marks: readonly Mark[]): Model {
    const { graph, opsets, irVersion, dit } = this.model;
    const conditions = this.inputs.filter((input) => input !== this.noise && input !== this.draws).map((input) => input.name);
    const marked = new Set(marks.map(({ site }) => site));
    const branches = dit?.branches.filter(({ site }) => marked.has(site)) ?? [];
    return {
      graph: {
        name: graph.name,
        inputs: this.inputs,
        outputs: [{ name: OUTPUT, value: latent }],
        nodes: [...this.prologue.nodes, ...nodes],
        marks,
      },
      opsets,
      irVersion,
      metadata: new Map(),
      // The run has no time input any more, so it is no step that could be lifted or unrolled again.
      dit: dit && { ...dit, timestep: undefined, prediction: OUTPUT, conditions, branches },
    };
  }
}
