/** The network calls of a run, and the values that they see: inputs of the run, or constants in their place. */
import { Builder } from "../../ir/build.js";
import type { Half } from "../../ir/dit.js";
import { constant, ditView, inputValue, type Mark, type Model, type Node, type Port, type Value } from "../../ir/graph.js";
import type { TensorType } from "../../ir/types.js";
import {
  type Call,
  drawingRows,
  latentShape,
  mainNetwork,
  networkOf,
  type OwnCondition,
  type Run,
  type RunPorts,
  runPorts,
  scaleInput,
  type ConditionSource,
  uncondInput,
} from "../../schedules/index.js";
import type { CallOutput } from "./guided.js";
import { HoistedNetwork, type Placing } from "./hoisted-network.js";
import { RunTimeScale } from "./run-time-scale.js";
import type { Step } from "./step.js";

export class Calls implements Placing {
  readonly prologue = new Builder();
  readonly body = new Builder();
  readonly conditions = new Map<string, Record<Half, Value>>();
  readonly kept: Placing["kept"] = new Set();
  /** The input that the run starts from. */
  readonly noise: Value;
  /** What a mask keeps, and the mask, by itself or [rows, …] with one for each row; absent if nothing is kept. */
  readonly original: { readonly image: Value; readonly mask: Value | undefined } | undefined;
  /** One unit normal for each row that adds noise, in order: [draws, …latent]; absent if there are none. */
  readonly draws: Value | undefined;
  /** The guidance scale, if it is an input of the run. */
  readonly scale: RunTimeScale | undefined;
  readonly inputs: Value[] = [];
  readonly ports: RunPorts;
  private readonly model: Model;
  /** One for all calls of the same network with the same halves. */
  private readonly networks = new Map<string, HoistedNetwork>();

  constructor(readonly run: Run) {
    this.model = mainNetwork(run);
    this.ports = runPorts(run);
    const shape = latentShape(run);
    this.noise = this.input(ditView(this.model).latent, { elem: "float", shape });
    this.takeConditions();
    const { original } = run;
    this.original = original && { image: this.own(original.image), mask: original.mask && this.own(original.mask) };
    const draws = drawingRows(run.table).length;
    if (draws > 0) this.draws = this.input(this.ports.noise, { elem: "float", shape: [draws, ...shape] });
    const scale = scaleInput(run);
    if (scale) this.inputs.push(scale);
    this.scale = scale && new RunTimeScale(this.prologue, scale, run.rows);
  }

  /** Creates the conditions of the run, one for each half where the halves differ. Fixed ones become constants. */
  private takeConditions(): void {
    const left = new Set(Array.from(this.run.networks.values(), ({ graph }) => graph.inputs.map(({ name }) => name)).flat());
    for (const [name, { type, halves }] of this.run.conditions) {
      if (!left.has(name)) continue;
      const cond = this.source(name, halves.cond, type);
      const isShared = halves.uncond === halves.cond;
      this.conditions.set(name, { cond, uncond: isShared ? cond : this.source(uncondInput(name), halves.uncond, type) });
    }
  }

  private own({ name, type, halves }: OwnCondition): Value {
    return this.source(name, halves.cond, type);
  }

  /** The value that a half sees of a condition, or all rows see together: [rows, …]. A constant gets the name `label`. */
  private source(label: string, source: ConditionSource, type: TensorType | undefined): Value {
    if (source.kind === "constant") return constant(label, source.data);
    const { perStep, name } = source;
    return this.input(name, perStep && type?.shape ? { ...type, shape: [perStep.length, ...type.shape] } : type);
  }

  private input(name: string, type: TensorType | undefined): Value {
    const input = inputValue(name, type);
    this.inputs.push(input);
    return input;
  }

  /** Calls the networks on a latent; returns the output of each call. */
  at(step: Step, calls: readonly Call[], latent: Value): readonly CallOutput[] {
    return calls.map((call) => {
      const label = call.halves.includes("cond") ? step.label : `${step.label}/uncond`;
      return { halves: call.halves, value: this.network(call).call(step, latent, label) };
    });
  }

  private network(call: Call): HoistedNetwork {
    const key = [call.network, ...call.halves].join();
    const known = this.networks.get(key);
    if (known) return known;
    const isSame = (other: Call): boolean => [other.network, ...other.halves].join() === key;
    const steps = this.run.rows.flatMap(({ calls }, row) => (calls.some(isSame) ? [row] : []));
    const network = new HoistedNetwork(this, networkOf(this.run, call), call.halves, steps);
    this.networks.set(key, network);
    return network;
  }

  get marks(): readonly Mark[] {
    return [...this.networks.values()].flatMap(({ marks }) => marks);
  }

  /** The run as a model: the prologue, then these nodes. `others`: outputs beside the last latent. */
  finish(nodes: readonly Node[], latent: Value, marks: readonly Mark[], others: readonly Port[] = []): Model {
    const { graph, dit } = this.model;
    const networks = [...this.run.networks.values()];
    const opsets = new Map(networks.flatMap((network) => [...network.opsets]));
    const irVersion = Math.max(...networks.map((network) => network.irVersion));
    const conditions = this.inputs.filter((input) => input !== this.noise && input !== this.draws).map((input) => input.name);
    const marked = new Set(marks.map(({ site }) => site));
    const branches = dit?.branches.filter(({ site }) => marked.has(site)) ?? [];
    return {
      graph: {
        name: graph.name,
        inputs: this.inputs,
        outputs: [{ name: this.ports.latent, value: latent }, ...others],
        nodes: [...this.prologue.nodes, ...nodes],
        marks,
      },
      opsets,
      irVersion,
      metadata: new Map(),
      // The run has no time input any more, so it is no step that could be lifted or unrolled again.
      dit: dit && { ...dit, timestep: undefined, prediction: this.ports.latent, conditions, branches },
    };
  }
}
