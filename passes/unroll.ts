/**
 * One step becomes the whole run: the network is called for every row of the sampler's table, once or for each half of the
 * guidance, and the sampler's sums and the guidance are wired between the calls.
 */
import { Builder, shapeOf, type WeightedValue } from "../ir/build.js";
import { reservedName } from "../ir/diagnostics.js";
import { constant, ditView, inputValue, opsetOf, type Model, type Value } from "../ir/graph.js";
import { tensorOf, type TensorData } from "../ir/tensor.js";
import type { TensorType } from "../ir/types.js";
import { callsAt, uncondInput, type Half, type Row, type SamplerTable } from "../schedules/index.js";
import type { Pass, PassContext } from "./index.js";
import { Guided, type Output } from "./unroll/guided.js";
import { Network, type Run } from "./unroll/network.js";
import { sumsOf, type Sum } from "./unroll/sums.js";

export default {
  name: "unroll",
  summary: "call the step once per row of the sampler, or per half, and wire the calls",
  preserves: "rounding",
  run(model, context) {
    if (!context.plan) throw new Error("internal: unroll needs a plan");
    return new Unrolling(model, context, context.plan.table).run();
  },
} satisfies Pass;

/** What the run's result is called. */
const OUTPUT = "latent";

class Unrolling implements Run {
  readonly prologue = new Builder();
  readonly body = new Builder();
  readonly conditions = new Map<string, Record<Half, Value>>();
  readonly kept: Run["kept"] = new Set();
  private readonly inputs: Value[] = [];
  /** By the halves that a call sees. */
  private readonly networks = new Map<string, Network>();

  constructor(
    private readonly model: Model,
    readonly context: PassContext,
    readonly table: SamplerTable,
  ) {}

  run(): Model {
    const { graph, opsets, irVersion, dit } = this.model;
    const { latent: name } = ditView(this.model);
    const seen = graph.inputs.find((input) => input.name === name);
    if (!seen) throw new Error(`internal: the step has no input '${name}'`);
    const noise = inputValue(name, { elem: "float", shape: [this.context.batch, ...shapeOf(seen).slice(1)] });
    this.inputs.push(noise);
    this.takeConditions();
    const conditions = this.inputs.slice(1).map((input) => input.name);
    const latent = this.sample(noise);
    const names = this.inputs.map((input) => input.name);
    const clash = names.find((input, i) => input === OUTPUT || names.indexOf(input) !== i);
    if (clash !== undefined) throw reservedName(clash);
    return {
      graph: {
        name: graph.name,
        inputs: this.inputs,
        outputs: [{ name: OUTPUT, value: latent }],
        nodes: [...this.prologue.nodes, ...this.body.nodes],
        marks: [...this.networks.values()].flatMap(({ marks }) => marks),
      },
      opsets,
      irVersion,
      metadata: new Map(),
      // The run has no time input any more, so it is no step that could be lifted or unrolled again.
      dit: dit && { ...dit, timestep: undefined, prediction: OUTPUT, conditions },
    };
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

  /** The sampling run; answers with its last latent. */
  private sample(noise: Value): Value {
    const { body } = this;
    const { rows, initialScale } = this.table;
    const digits = String(rows.length - 1).length;
    const label = (k: number): string => `step${String(k).padStart(digits, "0")}`;
    const guided = new Guided(body, this.context, shapeOf(noise), opsetOf(this.model));
    const draws = this.noiseDraws(shapeOf(noise), label);
    const { next, clamped, lone } = sumsOf(rows);
    const { sign } = this.context.prediction;
    let latent = body.weightedSum([{ value: noise, weight: initialScale }], `${label(0)}/latent`);
    const latents = [latent];
    /** What adds up to the weight of an output that is read once, or else to the output. */
    const outs: (readonly WeightedValue[])[] = [];
    const histories = new Map<number, Value>();
    const outOf = ([step, weight]: readonly [number, number]): readonly WeightedValue[] =>
      at(outs, step).map((term) => (lone.has(step) ? term : { ...term, weight: term.weight * weight }));
    const historyOf = ([step, weight]: readonly [number, number]): WeightedValue => ({ value: required(histories.get(step)), weight });
    /** The terms of a sum of row `k` that are known before the network is called, and those that the call gives. */
    const earlier = (sum: Sum | undefined, k: number): readonly WeightedValue[] => [
      ...Array.from(sum?.x ?? [], ([step, weight]) => ({ value: at(latents, step), weight })),
      ...Array.from(sum?.out ?? [])
        .filter(([step]) => step < k)
        .flatMap(outOf),
      ...Array.from(sum?.m ?? [])
        .filter(([step]) => step < k)
        .map(historyOf),
    ];
    const called = (sum: Sum | undefined, k: number): readonly WeightedValue[] => [
      ...Array.from(sum?.out ?? [])
        .filter(([step]) => step === k)
        .flatMap(outOf),
      ...Array.from(sum?.m ?? [])
        .filter(([step]) => step === k)
        .map(historyOf),
    ];
    for (const [k, row] of rows.entries()) {
      const name = k === rows.length - 1 ? OUTPUT : `${label(k + 1)}/latent`;
      // In front of the call, so that a runtime that begins with what stands last does not begin with these.
      const kept = body.products(earlier(next[k], k), name);
      const seen = body.weightedSum([{ value: latent, weight: row.inputScale }], `${label(k)}/scaled`);
      const outputs = callsAt(this.context.guidance, k).map((halves) => this.call(k, halves, seen, label(k)));
      const terms = guided.terms(outputs, k, sign * (lone.get(k) ?? 1), label(k));
      outs.push(lone.has(k) || terms.length === 1 ? terms : [{ value: body.weightedSum(terms, `${label(k)}/guided`), weight: 1 }]);
      const history = clamped[k] && body.weightedSum([...earlier(clamped[k], k), ...called(clamped[k], k)], `${label(k)}/history`);
      if (history) histories.set(k, this.clamp(history, row, label(k)));
      const draw = draws[k];
      const random = draw && row.next.learned ? guided.learnedNoise(outputs, draw, row.next.learned, label(k)) : draw;
      latent = body.weightedSum([...kept, ...called(next[k], k), ...(random ? [{ value: random, weight: row.next.noise }] : [])], name);
      latents.push(latent);
    }
    return latent;
  }

  private call(k: number, halves: readonly Half[], latent: Value, label: string): Output {
    const name = halves.includes("cond") ? label : `${label}/uncond`;
    return { halves, value: this.network(halves).call(k, latent, name) };
  }

  private network(halves: readonly Half[]): Network {
    const key = halves.join();
    const known = this.networks.get(key);
    if (known) return known;
    const isAlone = this.context.guidance.form === "batched" && halves.length === 1;
    const network = new Network(this, isAlone ? required(this.context.alone) : this.model, halves);
    this.networks.set(key, network);
    return network;
  }

  private clamp(value: Value, { m: { clip = Infinity } }: Row, label: string): Value {
    const bound = (number: number): Value => constant(`${label}/bound`, tensorOf("float", [], [number]));
    return this.body.op("Clip", [value, bound(-clip), bound(clip)], `${label}/clamped`, { elem: "float", shape: shapeOf(value) });
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
}

function at<T>(values: readonly T[], step: number): T {
  return required(values[step]);
}

function required<T>(value: T | undefined): T {
  if (value === undefined) throw new Error("internal: the sampler's table points at a step that is not there");
  return value;
}
