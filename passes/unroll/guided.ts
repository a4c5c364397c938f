/** From the network's outputs at one row to what the sampler sums: the guided prediction, and the learned noise. All in float. */
import { shapeOf, type Builder, type WeightedValue } from "../../ir/build.js";
import { constant, type Value } from "../../ir/graph.js";
import { tensorOf } from "../../ir/tensor.js";
import { scaleAt, type Half, type LearnedVariance, type Rescale } from "../../schedules/index.js";
import type { PassContext } from "../index.js";

/** What a call of the network gave: all channels, the halves along axis 0. */
export interface Output {
  readonly halves: readonly Half[];
  readonly value: Value;
}

export class Guided {
  constructor(
    private readonly body: Builder,
    private readonly context: PassContext,
    /** Of the latent. */
    private readonly shape: readonly number[],
    /** Version of the standard operator set. */
    private readonly opset: number,
  ) {}

  /** Terms that add up to `factor` times the guided prediction of row `k`. */
  terms(outputs: readonly Output[], k: number, factor: number, label: string): readonly WeightedValue[] {
    const { guidance, prediction } = this.context;
    const parts = outputs.map(({ halves, value }) => ({ halves, value: this.channels(value, prediction.channels, label, "prediction") }));
    const [first] = parts;
    if (first && parts.length === 1 && first.halves.length === 1) return [{ value: first.value, weight: factor }];
    if (!guidance.rescale) return parts.flatMap((part) => this.weighted(part, k, factor, label));
    const terms = parts.flatMap((part) => this.weighted(part, k, 1, label));
    const guided = this.body.weightedSum(terms, `${label}/guided`);
    const rescaled = this.rescaled(guided, this.cond(parts, label), guidance.rescale, `${label}/rescale`);
    return [{ value: rescaled, weight: factor }];
  }

  /** uncond + scale · (cond − uncond) weighs cond with the scale and uncond with 1 − scale; in channels without guidance, with 1 and 0. */
  private weighted({ halves, value }: Output, k: number, factor: number, label: string): readonly WeightedValue[] {
    const { guidance, prediction, batch } = this.context;
    const { channelAxis } = prediction;
    const scale = scaleAt(guidance, k);
    const counts = guidance.channels ? (this.shape[channelAxis] ?? 1) : 1;
    const isGuided = (channel: number): boolean =>
      !guidance.channels || (channel >= guidance.channels[0] && channel < guidance.channels[1]);
    const weights = halves.map((half) =>
      Array.from({ length: counts }, (_, channel) => {
        const guided = isGuided(channel) ? scale : 1;
        return factor * (half === "cond" ? guided : 1 - guided);
      }),
    );
    const [lone = []] = weights;
    const [weight = 1] = lone;
    if (weights.length === 1 && lone.length === 1) return [{ value, weight }];
    const rows = halves.length > 1 ? batch : 1;
    const dims = this.shape.map((_, axis) => (axis === 0 ? rows * halves.length : axis === channelAxis ? counts : 1));
    const numbers = weights.flatMap((row) => Array.from({ length: rows }, () => row).flat());
    const scales = constant(`${label}/weights`, tensorOf("float", dims, numbers));
    const scaled = this.body.op("Mul", [value, scales], `${label}/weighted_${halves.join("_")}`, { elem: "float", shape: shapeOf(value) });
    const split = halves.length > 1 ? this.body.splitRows(scaled, halves.length, `${label}/half`) : [scaled];
    return split.map((half) => ({ value: half, weight: 1 }));
  }

  private cond(outputs: readonly Output[], label: string): Value {
    const { batch } = this.context;
    const output = outputs.find(({ halves }) => halves.includes("cond"));
    if (!output) throw new Error("internal: no call sees the conditions");
    const at = output.halves.indexOf("cond") * batch;
    return this.body.slice(output.value, 0, at, at + batch, `${label}/cond`);
  }

  private channels(value: Value, range: readonly [number, number] | undefined, label: string, name: string): Value {
    const float = this.body.cast(value, "float", `${label}/float`);
    return range ? this.body.slice(float, this.context.prediction.channelAxis, range[0], range[1], `${label}/${name}`) : float;
  }

  private rescaled(guided: Value, cond: Value, { form, strength }: Rescale, label: string): Value {
    const { body, shape } = this;
    const axes = shape.map((_, axis) => axis).slice(form === "std" ? 1 : -1);
    const reduce = (opType: string, value: Value, name: string): Value => body.reduce(opType, value, axes, this.opset, name);
    // The count of elements cancels from the ratio of deviations.
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

  /** The unit normal `draw` with the deviation that the network gives: exp((max − min)/4 · v + (max + min)/4). */
  learnedNoise(outputs: readonly Output[], draw: Value, { min, max }: LearnedVariance, label: string): Value {
    const { body, shape } = this;
    const { channels, channelAxis } = this.context.prediction;
    const from = channels?.[1] ?? 0;
    const type = { elem: "float", shape } as const;
    const [output] = outputs.filter(({ halves }) => halves.includes("cond"));
    if (!output) throw new Error("internal: no call sees the conditions");
    const variance = this.channels(output.value, [from, from + (shape[channelAxis] ?? 0)], label, "variance");
    const own = this.cond([{ ...output, value: variance }], `${label}/variance`);
    const scaled = body.weightedSum([{ value: own, weight: (max - min) / 4 }], `${label}/spread`);
    const shifted = body.op(
      "Add",
      [scaled, constant(`${label}/mean`, tensorOf("float", [], [(max + min) / 4]))],
      `${label}/log_deviation`,
      type,
    );
    return body.op("Mul", [body.op("Exp", [shifted], `${label}/deviation`, type), draw], `${label}/learned_noise`, type);
  }
}
