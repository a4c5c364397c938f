/**
 * What calibration measures: per branch site, sums over samples from which error curves and planning costs follow.
 *
 * With F_s the branch's value at step s (all rows of the network's batch, guidance halves included):
 *   norm[s]           = Σ ‖F_s‖₁
 *   diff[l-1][s]      = Σ ‖F_s − F_{s−l}‖₁
 *   ratio[l-1][s]     = Σ ‖F_s − F_{s−l}‖₁ / ‖F_s‖₁      (SmoothCache, arXiv 2411.10510, §3.2), and of its squares
 *   gram[l][s]        = Σ ⟨F_s, F_{s−l}⟩
 * where Σ runs over samples, so that the traces of different samples add up. Entries with s < l are 0.
 */
import { z } from "zod";
import { Builder } from "../ir/build.js";
import { badCurves, badTrace } from "../ir/diagnostics.js";
import { BRANCH_KINDS } from "../ir/dit.js";
import { inputValue, type Model, type Value } from "../ir/graph.js";
import { elementCount, type ElementType } from "../ir/types.js";
import { readTensor, tensorNumbers, type TensorData } from "../ir/tensor.js";
import { readJson } from "./files.js";
import { parseWith, type SiteStatistics } from "../schedules/index.js";
import { Session, type RuntimeOptions, type Tensors } from "./runtime.js";

const row = z.array(z.number());
const band = z.array(row);
const macsSchema = z.strictObject({ linear: z.number(), attention: z.number() });

const siteSchema = z.strictObject({
  kind: z.enum(BRANCH_KINDS),
  block: z.int(),
  stream: z.string(),
  macs: macsSchema,
  norm: row,
  diff: band,
  ratio: band,
  ratioSquare: band,
  gram: band,
});

export const traceSchema = z.strictObject({
  format: z.literal("smoothcc-trace/1"),
  /** Digest of the one-step graph, weights apart. */
  structure: z.string(),
  /** Name of the sampler and digest of its table. */
  sampler: z.strictObject({ name: z.string(), digest: z.string(), timesteps: row }),
  steps: z.int().min(1),
  guidance: z.strictObject({ form: z.string(), scale: z.union([z.number(), z.array(z.number())]) }),
  /** Numbers of the samples (seed + number is the noise's seed), in order. */
  samples: z.array(z.int()).min(1),
  seed: z.int(),
  /** MACs of one whole step at the calibration's batch. */
  macs: macsSchema,
  sites: z.record(z.string(), siteSchema),
});

export type Trace = z.infer<typeof traceSchema>;
type SiteTrace = z.infer<typeof siteSchema>;

/** Lags for which L1 sums are kept; the largest reuse distance that a threshold rule can look at. */
const L1_LAGS = 8;

/** Reads a trace. Throws FILE_MISSING, BAD_JSON, BAD_JSON_FIELD, BAD_TRACE. */
export function readTrace(file: string): Trace {
  const trace = parseWith(traceSchema, readJson(file), file);
  const { steps } = trace;
  if (Object.keys(trace.sites).length === 0) throw badTrace(file, "it has no branches");
  for (const [site, { norm, diff, ratio, ratioSquare, gram }] of Object.entries(trace.sites)) {
    const all = [norm, ...diff, ...ratio, ...ratioSquare, ...gram];
    if (all.some((values) => values.length !== steps)) throw badTrace(file, `the rows of ${site} do not have ${steps} entries`);
  }
  return trace;
}

/** What was measured of one site, as policies read it; undefined for a site that is not there. */
export function siteStatistics({ sites, samples }: Trace, name: string): SiteStatistics | undefined {
  const site = sites[name];
  if (!site) return undefined;
  const { norm, diff, ratio, gram } = site;
  return { norm, diff, gram, ratio: [ratio.map((band) => band.map((sum) => sum / samples.length))], gain: [] };
}

/** The sums of one site while samples are added. */
export type SiteSums = Pick<SiteTrace, "norm" | "diff" | "ratio" | "ratioSquare" | "gram">;

/** Collects the branch values of one trajectory after another and adds up their statistics; the runtime does the reductions. */
export class Statistics {
  readonly sums = new Map<string, SiteSums>();
  private readonly values = new Map<string, { readonly elem: ElementType; readonly count: number; readonly bytes: Uint8Array }>();
  private readonly sessions = new Map<string, Session>();
  private readonly lags: number;

  constructor(
    private readonly steps: number,
    private readonly options: RuntimeOptions,
  ) {
    this.lags = Math.min(L1_LAGS, steps - 1);
  }

  /** Takes the values of one step. */
  observe(step: number, branches: Tensors): void {
    for (const [site, value] of branches) {
      const bytes = readTensor(value);
      let kept = this.values.get(site);
      if (!kept) {
        kept = { elem: value.elem, count: elementCount(value.shape), bytes: new Uint8Array(this.steps * bytes.byteLength) };
        this.values.set(site, kept);
      }
      kept.bytes.set(bytes, step * bytes.byteLength);
    }
  }

  /** Adds the trajectory that has been observed to the sums. Throws BAD_CURVES for branches that are not finite, or 0 throughout a step. */
  async finishSample(): Promise<void> {
    const { steps, lags } = this;
    for (const [site, { elem, count, bytes }] of this.values) {
      const values: TensorData = { elem, shape: [steps, count], content: { kind: "bytes", bytes } };
      const results = await (await this.reductions(elem, count)).run(new Map([["values", values]]));
      const sums = this.sums.get(site) ?? emptySums(steps, lags);
      this.sums.set(site, sums);
      const norms = numbers(results, "norm");
      const odd = norms.findIndex((norm) => !(Number.isFinite(norm) && norm > 0));
      if (odd >= 0) throw badCurves(site, `at step ${odd} the sum of the branch's absolute values is ${norms[odd] ?? NaN}`);
      addTo(sums.norm, norms);
      for (let lag = 1; lag <= lags; lag++) {
        const differences = numbers(results, `diff_${lag}`);
        const ratios = differences.map((difference, i) => difference / (norms[i + lag] ?? 1));
        addTo(sums.diff[lag - 1], differences, lag);
        addTo(sums.ratio[lag - 1], ratios, lag);
        addTo(
          sums.ratioSquare[lag - 1],
          ratios.map((ratio) => ratio * ratio),
          lag,
        );
      }
      const products = numbers(results, "gram");
      for (const [lag, sum] of sums.gram.entries()) {
        for (let step = lag; step < steps; step++) sum[step] = (sum[step] ?? 0) + (products[step * steps + step - lag] ?? 0);
      }
    }
  }

  async close(): Promise<void> {
    for (const session of this.sessions.values()) await session.close();
  }

  private async reductions(elem: ElementType, count: number): Promise<Session> {
    const key = `${elem}[${count}]`;
    const known = this.sessions.get(key);
    if (known) return known;
    const session = await Session.open(reductionModel(elem, this.steps, count, this.lags), {
      ...this.options,
      device: "cpu",
      optimise: "disabled",
    });
    this.sessions.set(key, session);
    return session;
  }
}

/** `values` [steps, count] → `norm`, `diff_<lag>`, `gram` [steps, steps]; L1 in float, inner products in double. */
function reductionModel(elem: ElementType, steps: number, count: number, lags: number): Model {
  const build = new Builder();
  const values = inputValue("values", { elem, shape: [steps, count] });
  const floats = build.cast(values, "float", "floats");
  const l1 = (value: Value, length: number, name: string): Value =>
    build.op(
      "ReduceL1",
      [value],
      name,
      { elem: "float", shape: [length] },
      { axes: { kind: "ints", value: [1n] }, keepdims: { kind: "int", value: 0n } },
    );
  const outputs = [{ name: "norm", value: l1(floats, steps, "norm") }];
  for (let lag = 1; lag <= lags; lag++) {
    const length = steps - lag;
    const later = build.slice(floats, 0, lag, steps, `later_${lag}`);
    const earlier = build.slice(floats, 0, 0, length, `earlier_${lag}`);
    const difference = build.op("Sub", [later, earlier], `difference_${lag}`, { elem: "float", shape: [length, count] });
    outputs.push({ name: `diff_${lag}`, value: l1(difference, length, `diff_${lag}`) });
  }
  const doubles = build.cast(values, "double", "doubles");
  const transposed = build.op(
    "Transpose",
    [doubles],
    "transposed",
    { elem: "double", shape: [count, steps] },
    { perm: { kind: "ints", value: [1n, 0n] } },
  );
  outputs.push({ name: "gram", value: build.op("MatMul", [doubles, transposed], "gram", { elem: "double", shape: [steps, steps] }) });
  return {
    graph: { name: "statistics", inputs: [values], outputs, nodes: build.nodes, marks: [] },
    opsets: new Map([["", 17]]),
    irVersion: 8,
    metadata: new Map(),
  };
}

function emptySums(steps: number, lags: number): SiteSums {
  const zeros = (count: number): number[][] => Array.from({ length: count }, () => new Array<number>(steps).fill(0));
  return { norm: new Array<number>(steps).fill(0), diff: zeros(lags), ratio: zeros(lags), ratioSquare: zeros(lags), gram: zeros(steps) };
}

function numbers(results: Tensors, name: string): number[] {
  const data = results.get(name);
  if (!data) throw new Error(`internal: the reductions have no '${name}'`);
  return tensorNumbers(data);
}

function addTo(sum: number[] | undefined, values: readonly number[], offset = 0): void {
  if (!sum) throw new Error("internal: a band of sums is missing");
  for (const [i, value] of values.entries()) sum[offset + i] = (sum[offset + i] ?? 0) + value;
}
