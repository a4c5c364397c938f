/** Builds the guided prediction and the learned noise from the outputs of the network calls of one row. All in float. */
import { type Builder, shapeOf, type Weight, type WeightedValue } from "../../ir/build.js";
import { entryAt } from "../../ir/entries.js";
import { constant, type Value } from "../../ir/graph.js";
import type { StandardOperator } from "../../ir/operators.js";
import { tensorOf } from "../../ir/tensor.js";
import type { Half } from "../../ir/dit.js";
import type { LearnedVariance, Rescale, Run } from "../../schedules/index.js";
import type { Affine, RunTimeScale } from "./run-time-scale.js";
import type { OfRow, Step } from "./step.js";

/** The output of a network call: all channels, with the halves along axis 0. */
export interface CallOutput {
  readonly halves: readonly Half[];
  readonly value: Value;
}

export class GuidedPrediction {
  constructor(
    private readonly body: Builder,
    private readonly run: Run,
    /** The shape of the latent. */
    private readonly shape: readonly number[],
    /** Version of the standard operator set. */
    private readonly opset: number,
    /** If it is an input of the run. */
    private readonly scale?: RunTimeScale,
  ) {}

  /** Terms that add up to `factor` times the guided prediction of a step. */
  terms<W extends Weight>(outputs: readonly CallOutput[], step: Step<W>, factor: OfRow<number>): readonly WeightedValue<W | number>[] {
    const { label } = step;
    const { guidance, prediction } = this.run;
    const parts = outputs.flatMap(({ halves, value }) =>
      this.apart({ halves, value: this.channels(value, prediction.channels, label, "prediction") }, `${label}/half`),
    );
    const [first] = parts;
    if (first && parts.length === 1 && first.halves.length === 1)
      return [{ value: first.value, weight: step.weight(`${label}/factor`, factor) }];
    if (!guidance.rescale) return parts.flatMap((part) => this.weighted(part, step, factor));
    const terms = parts.flatMap((part) => this.weighted(part, step, () => 1));
    const guided = this.body.weightedSum(terms, `${label}/guided`);
    const rescaled = this.rescaled(guided, this.cond(parts, label), guidance.rescale, `${label}/rescale`);
    return [{ value: rescaled, weight: step.weight(`${label}/factor`, factor) }];
  }

  /** An output for each half, in runs of any batch: weights of all rows would have to be as many as these are. */
  private apart(output: CallOutput, label: string): readonly CallOutput[] {
    const { halves, value } = output;
    if (!this.run.anyBatch || halves.length === 1) return [output];
    return this.body.splitRows(value, halves.length, label).map((half, i) => ({ halves: halves.slice(i, i + 1), value: half }));
  }

  /** The weights in uncond + scale · (cond − uncond) are scale for cond and 1 − scale for uncond; in channels without guidance, 1 and 0. */
  private weighted<W extends Weight>(
    { halves, value }: CallOutput,
    step: Step<W>,
    factor: OfRow<number>,
  ): readonly WeightedValue<W | number>[] {
    const { guidance, prediction, batch, rows: all } = this.run;
    const { channelAxis } = prediction;
    const { label } = step;
    const counts = guidance.channels ? (this.shape[channelAxis] ?? 1) : 1;
    const isGuided = (channel: number): boolean =>
      !guidance.channels || (channel >= guidance.channels[0] && channel < guidance.channels[1]);
    const weightOf = (half: Half, channel: number, row: number, scale: number): number => {
      const guided = isGuided(channel) ? scale : 1;
      return factor(row) * (half === "cond" ? guided : 1 - guided);
    };
    const scaleAt: OfRow<number> = (row) => entryAt(all, row).scale;
    const [onlyHalf, ...others] = halves;
    if (onlyHalf && others.length === 0 && counts === 1 && !this.scale)
      return [{ value, weight: step.weight(`${label}/weight_${onlyHalf}`, (row) => weightOf(onlyHalf, 0, row, scaleAt(row))) }];
    const rows = halves.length > 1 ? batch : 1;
    const dims = this.shape.map((_, axis) => (axis === 0 ? rows * halves.length : axis === channelAxis ? counts : 1));
    const numbers: Affine["of"] = (row, scale) =>
      halves.flatMap((half) => Array.from({ length: rows * counts }, (_, i) => weightOf(half, i % counts, row, scale)));
    const of = halves.join("_");
    const scales =
      this.scale?.at(step, { name: `weights_${of}`, elem: "float", shape: dims, of: numbers }) ??
      step.constant(`${label}/weights`, "float", dims, (row) => numbers(row, scaleAt(row)));
    const scaled = this.body.op("Mul", [value, scales], `${label}/weighted_${of}`, { elem: "float", shape: shapeOf(value) });
    const split = halves.length > 1 ? this.body.splitRows(scaled, halves.length, `${label}/half`) : [scaled];
    return split.map((half) => ({ value: half, weight: 1 }));
  }

  private cond(outputs: readonly CallOutput[], label: string): Value {
    const { batch } = this.run;
    const output = outputs.flatMap((one) => this.apart(one, `${label}/half`)).find(({ halves }) => halves.includes("cond"));
    if (!output) throw new Error("internal: no call sees the conditions");
    const at = output.halves.indexOf("cond") * batch;
    return this.body.slice(output.value, 0, at, at + batch, `${label}/cond`);
  }

  private channels(value: Value, range: readonly [number, number] | undefined, label: string, name: string): Value {
    const float = this.body.cast(value, "float", `${label}/float`);
    return range ? this.body.slice(float, this.run.prediction.channelAxis, range[0], range[1], `${label}/${name}`) : float;
  }

  private rescaled(guided: Value, cond: Value, { form, strength }: Rescale, label: string): Value {
    const { body, shape } = this;
    const axes = shape.map((_, axis) => axis).slice(form === "std" ? 1 : -1);
    const reduce = (opType: StandardOperator, value: Value, name: string): Value => body.reduce(opType, value, axes, this.opset, name);
    // The number of elements cancels in the ratio of deviations, so L2 norms are enough.
    const size = (value: Value, name: string): Value => {
      if (form === "norm") return reduce("ReduceL2", value, `${label}/${name}_norm`);
      const centred = body.op("Sub", [value, reduce("ReduceMean", value, `${label}/${name}_mean`)], `${label}/${name}_centred`, {
        elem: "float",
        shape,
      });
      return reduce("ReduceL2", centred, `${label}/${name}_deviation`);
    };
    const given = size(cond, "cond");
    const reduced = { elem: "float", shape: shapeOf(given) } as const;
    const ratio = body.op("Div", [given, size(guided, "guided")], `${label}/ratio`, reduced);
    const mixed =
      strength === 1
        ? ratio
        : body.op(
            "Add",
            [
              body.weightedSum([{ value: ratio, weight: strength }], `${label}/share`),
              constant(`${label}/rest`, tensorOf("float", [], [1 - strength])),
            ],
            `${label}/mix`,
            reduced,
          );
    return body.op("Mul", [guided, mixed], `${label}/rescaled`, { elem: "float", shape });
  }

  /**
   * The unit normal `draw` times the learned standard deviation exp((max − min)/4 · v + (max + min)/4),
   * which is 1 in rows without a learned variance.
   */
  learnedNoise(outputs: readonly CallOutput[], draw: Value, learned: OfRow<LearnedVariance | undefined>, step: Step): Value {
    const { body, shape } = this;
    const { label } = step;
    const between: OfRow<LearnedVariance> = (row) => learned(row) ?? { min: 0, max: 0 };
    const spread = step.weight(`${label}/spread_weight`, (row) => (between(row).max - between(row).min) / 4);
    const mean = step.constant(`${label}/mean`, "float", [], (row) => [(between(row).max + between(row).min) / 4]);
    const { channels, channelAxis } = this.run.prediction;
    const from = channels?.[1] ?? 0;
    const type = { elem: "float", shape } as const;
    const [output] = outputs.filter(({ halves }) => halves.includes("cond"));
    if (!output) throw new Error("internal: no call sees the conditions");
    const variance = this.channels(output.value, [from, from + entryAt(shape, channelAxis)], label, "variance");
    const own = this.cond([{ ...output, value: variance }], `${label}/variance`);
    const scaled = body.weightedSum([{ value: own, weight: spread }], `${label}/spread`);
    const shifted = body.op("Add", [scaled, mean], `${label}/log_deviation`, type);
    return body.op("Mul", [body.op("Exp", [shifted], `${label}/deviation`, type), draw], `${label}/learned_noise`, type);
  }
}
