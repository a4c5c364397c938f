/**
 * The oracle: a sampling run as a loop over the exporter's own one-step model. It follows a plan by feeding the values of cached branches
 * from outside, and shares no code with `passes/`. An artifact must reproduce its results.
 */
import { ATTENDED } from "../../ir/own-tokens.js";
import type { Half } from "../../ir/dit.js";
import { entryAt } from "../../ir/entries.js";
import type { Value } from "../../ir/graph.js";
import type { TensorData } from "../../ir/tensor.js";
import { staticShape } from "../../ir/types.js";
import {
  CacheMap,
  type CachedCell,
  type Call,
  type Cell,
  type Fresh,
  halfOf,
  networkOf,
  type Plan,
  type Row,
  type Run,
  type Term,
} from "../../schedules/index.js";
import type { RunInputs } from "../job/index.js";
import { AS_WRITTEN, type Session, type SessionOptions, Sessions } from "../runtime/index.js";
import { type BranchTokens, movesOf, NO_TOKENS, partOf, readersOf, seenAfter, tokensFor } from "./branch-tokens.js";
import { accumulate, forecast, halfOfRows, inputAt, scaleAt } from "./feeds.js";
import { blended, firstLatentOf } from "./inpainting.js";
import { guided, learnedDeviation, predictionsOf, varianceOf } from "./prediction.js";
import { cacheInput, movesInput, PREDICTION, seenInput, stepWith } from "./step-model.js";

/** The values of branches at one step, by cache. */
export type BranchValues = CacheMap<TensorData>;

/** Called after every step with the values of its branches that are computed, for some tokens or for all. */
export type Observer = (step: number, branches: BranchValues) => void | Promise<void>;

/** The latents, history values and outputs of a run, step by step: everything that later steps read, except branches. */
export interface Trajectory {
  readonly latents: readonly Float32Array[];
  readonly values: readonly Float64Array[];
  readonly outs: readonly Float64Array[];
}

/** The cells of branches at one step. */
export type Cells = CacheMap<Cell>;

/** The results of a step: the values of its computed branches, the history value, the output after guidance, and the next latent. */
export interface StepResult {
  readonly branches: BranchValues;
  readonly value: Float64Array;
  readonly out: Float64Array;
  readonly latent: Float32Array;
}

/** The state of a run in progress: its trajectory so far, and the branch values that are kept for later steps. */
export interface RunUnderWay extends Trajectory {
  readonly inputs: RunInputs;
  readonly course: Course;
  readonly lastReaders: CacheMap<ReadonlyMap<number, number>>;
  readonly history: CacheMap<Map<number, TensorData>>;
  /** What came into branches when each of their tokens was computed last, where tokens are chosen by that. */
  readonly seen: CacheMap<TensorData | undefined>;
  readonly latents: Float32Array[];
  readonly values: Float64Array[];
  readonly outs: Float64Array[];
  /** The next step, and the number of noise draws before it. */
  step: number;
  draws: number;
}

/** Options of a run, besides its inputs. */
export interface Course {
  /** Without a plan every branch is computed at every step. */
  readonly plan?: Plan | undefined;
  /** If set, all halves are computed at every step, even if guidance does not need them. */
  readonly observe?: Observer | undefined;
  /** The sites whose values the observer gets, for all halves. Default: all sites. */
  readonly only?: ReadonlySet<string> | undefined;
  /** Continues a trajectory that is the same up to the step `from`. Later steps must not read branches from before that step. */
  readonly begun?: { readonly trajectory: Trajectory; readonly from: number } | undefined;
}

/**
 * The loop of one run. It opens sessions as plans need them, with the kernels that artifacts are run with unless others are asked for.
 * Loops of the same network, with any cut, may share sessions.
 */
export class ReferenceLoop {
  private readonly asked = new WeakMap<Plan, Map<string, BranchTokens>>();

  constructor(
    private readonly sampling: Run,
    options: Partial<SessionOptions> = {},
    private readonly sessions = new Sessions({ ...AS_WRITTEN, ...options }),
  ) {}

  /** Loads the uncached step now rather than at its first run. */
  async open(): Promise<void> {
    const [first] = this.sampling.rows;
    for (const network of new Set(first?.calls.map((call) => call.network))) await this.sessionFor(network, new Map(), []);
  }

  /** The final latent. */
  async run(inputs: RunInputs, course: Course = {}): Promise<Float32Array> {
    return finalOf(await this.trajectory(inputs, course));
  }

  /** The whole trajectory. */
  async trajectory(inputs: RunInputs, course: Course = {}): Promise<Trajectory> {
    const underWay = this.start(inputs, course);
    while (underWay.step < this.sampling.rows.length) await this.advance(underWay, await this.attempt(underWay));
    return underWay;
  }

  /** A run before its first step, or before the first step after a trajectory that it continues. */
  start(inputs: RunInputs, course: Course = {}): RunUnderWay {
    const { trajectory, from } = course.begun ?? { from: 0 };
    const { rows } = this.sampling.table;
    return {
      inputs,
      course,
      lastReaders: new CacheMap(Array.from(course.plan?.cells ?? []).flatMap(([key, cells]) => readersOf(key, cells))),
      history: new CacheMap(),
      seen: new CacheMap(),
      step: from,
      draws: rows.slice(0, from).filter(({ next }) => next.noise !== 0).length,
      latents: trajectory?.latents.slice(0, from + 1) ?? [firstLatentOf(this.sampling, inputs)],
      values: trajectory?.values.slice(0, from) ?? [],
      outs: trajectory?.outs.slice(0, from) ?? [],
    };
  }

  /** Computes the next step of a run without taking it. `others` replace cells of the plan. */
  async attempt(
    { inputs, course, history, seen, step: k, draws, latents, values, outs }: RunUnderWay,
    others?: Cells,
  ): Promise<StepResult> {
    const { sampling: run } = this;
    const { plan, observe, only } = course;
    const row = run.table.rows[k];
    const latent = latents[k];
    if (!row || !latent) throw new Error(`internal: a run has no step ${k}`);
    const { calls, all } = entryAt(run.rows, k);
    const cellOf = (site: string, half: Half): Cell | undefined => others?.get({ site, half }) ?? plan?.cells.get({ site, half })?.[k];
    const branches: BranchValues = new CacheMap();
    const predictions = new Map<Half, ArrayLike<number>>();
    let variance: ArrayLike<number> = [];
    for (const call of observe ? all : calls) {
      const { halves } = call;
      const half = halfOf(halves);
      const model = networkOf(run, call);
      const probed = observe || plan ? model.graph.marks.flatMap(({ site }) => ((only?.has(site) ?? true) ? [site] : [])) : [];
      const feeds = new Map(model.graph.inputs.map((input) => [input.name, inputAt(run, input, k, halves, latent, inputs.conditions)]));
      const cached = new Map<string, Fresh | undefined>();
      const tokens = plan ? this.tokensOf(call, plan) : NO_TOKENS;
      for (const { site, value } of model.graph.marks) {
        const cell = cellOf(site, half);
        if (cell?.kind !== "terms") continue;
        cached.set(site, cell.fresh);
        feeds.set(cacheInput(site), this.read(cell, history.get({ site, half }), value));
        const { fresh } = cell;
        if (!fresh) continue;
        if (fresh.tokens) feeds.set(movesInput(site), movesOf(fresh));
        else feeds.set(seenInput(site), this.ofCall(seen.get({ site, half }), value));
        const kept = fresh.keepsKeys ? tokens.attended.get(site) : undefined;
        for (const part of kept ? ATTENDED : []) {
          const name = partOf(site, part);
          const terms: CachedCell = { kind: "terms", terms: cell.terms };
          feeds.set(cacheInput(name), this.read(terms, history.get({ site: name, half }), kept?.[part].value));
          if (fresh.tokens) feeds.set(movesInput(name), movesOf({ ...fresh, move: undefined }));
        }
      }
      const results = await (await this.sessionFor(call.network, cached, probed, tokens)).run(feeds);
      for (const [site, value] of results) if (site !== PREDICTION) branches.set({ site, half }, value);
      const output = results.get(PREDICTION);
      if (!output) throw new Error("internal: the step returned no prediction");
      for (const [seenBy, part] of predictionsOf(run, output, halves)) predictions.set(seenBy, part);
      if (row.next.learned) variance = varianceOf(run, output, halves) ?? variance;
    }
    const out = guided(run, predictions, scaleAt(run, k, inputs.conditions));
    const { clip = Infinity } = row.m;
    const value = out.map((value, i) => Math.min(clip, Math.max(-clip, row.m.x * (latent[i] ?? 0) + row.m.out * value)));
    const next = nextOf(row, latent.length, {
      x: (step) => latents[step],
      m: (step) => (step === k ? value : values[step]),
      out: (step) => (step === k ? out : outs[step]),
    });
    if (row.next.noise !== 0) {
      const { learned } = row.next;
      const normals = inputs.draws?.subarray(draws * next.length, (draws + 1) * next.length) ?? new Float32Array();
      accumulate(next, learned ? normals.map((z, i) => z * learnedDeviation(variance[i] ?? NaN, learned)) : normals, row.next.noise);
    }
    return { branches, value, out, latent: new Float32Array(blended(run, k, next, inputs)) };
  }

  /** Takes the step that was attempted. */
  async advance(underWay: RunUnderWay, { branches, value, out, latent }: StepResult): Promise<void> {
    const { course, history, step } = underWay;
    for (const [key, lastReader] of underWay.lastReaders) {
      const kept = history.get(key) ?? new Map<number, TensorData>();
      history.set(key, kept);
      keep(kept, step, branches.get(key), lastReader);
    }
    const cond = this.sampling.guidance.order.indexOf("cond");
    for (const [key, cells] of course.plan?.cells ?? [])
      underWay.seen.set(key, seenAfter(cells[step], key, branches, underWay.seen.get(key), cond));
    if (this.sampling.table.rows[step]?.next.noise !== 0) underWay.draws++;
    underWay.outs.push(out);
    underWay.values.push(value);
    underWay.latents.push(latent);
    underWay.step++;
    await course.observe?.(step, branches);
  }

  async close(): Promise<void> {
    await this.sessions.close();
  }

  /** What is given for a value of this call that is not computed whole. */
  private read(cell: CachedCell, kept: ReadonlyMap<number, TensorData> | undefined, value: Value | undefined): TensorData {
    const read = ({ step, weight }: Term): { readonly data: TensorData; readonly weight: number } => ({
      data: this.ofCall(kept?.get(step), value),
      weight,
    });
    return forecast(cell.terms.map(read), cell);
  }

  /** A kept value for a call in which its place is that of `value`: it may be of both halves where the call only sees one. */
  private ofCall(data: TensorData | undefined, value: Value | undefined): TensorData {
    if (!data) throw new Error("internal: a cache has no value that could be read");
    const rows = staticShape(value?.type)?.[0];
    return data.shape[0] === rows ? data : halfOfRows(data, this.sampling.guidance.order.indexOf("cond"));
  }

  /** What the plan asks for in a call beside values of branches. */
  private tokensOf(call: Call, plan: Plan): BranchTokens {
    const ofPlan = this.asked.get(plan) ?? new Map<string, BranchTokens>();
    this.asked.set(plan, ofPlan);
    const key = [call.network, ...call.halves].join();
    const tokens = ofPlan.get(key) ?? tokensFor(this.sampling, call, plan);
    ofPlan.set(key, tokens);
    return tokens;
  }

  /** The session of a network that gets the cached sites as inputs and returns the other probed sites as outputs. */
  private sessionFor(
    network: Call["network"],
    cached: ReadonlyMap<string, Fresh | undefined>,
    probed: readonly string[],
    tokens: BranchTokens = NO_TOKENS,
  ): Promise<Session> {
    const { sampling: run } = this;
    const sites = Array.from(cached, ([site, partly]) => (partly ? `${site} (${partText(partly)})` : site));
    const asked = [...tokens.attended.keys(), "in:", ...tokens.incoming.keys()];
    const key = [run.of.cut, network, probed.join(), sites.join(), asked.join()].join("|");
    return this.sessions.of(key, () => stepWith(networkOf(run, { network, halves: [] }), cached, new Set(probed), tokens));
  }
}

/** How the graph of a step is different for a branch that is computed in part. */
function partText({ tokens, size, move, keepsKeys }: Fresh): string {
  return [tokens ? "in part" : size, ...(move ? ["moved"] : []), ...(keepsKeys ? ["keys kept"] : [])].join();
}

/** The values that a row sums up: latents (x), history values (m) and outputs (out), by step. */
export type EarlierValues = Readonly<Record<"x" | "m" | "out", (step: number) => ArrayLike<number> | undefined>>;

/** The next latent of a row, without the noise. */
export function nextOf({ next }: Row, size: number, { x, m, out }: EarlierValues): Float64Array {
  const sum = new Float64Array(size);
  for (const term of next.x) accumulate(sum, x(term.step), term.weight);
  for (const term of next.m) accumulate(sum, m(term.step), term.weight);
  for (const term of next.out ?? []) accumulate(sum, out(term.step), term.weight);
  return sum;
}

/** The latent that a run ends with. */
export function finalOf({ latents }: Trajectory): Float32Array {
  const final = latents.at(-1);
  if (!final) throw new Error("internal: a run without latents");
  return final;
}

/** Keeps a computed value if a later step reads it, and drops values without further readers. */
function keep(kept: Map<number, TensorData>, step: number, value: TensorData | undefined, lastReader: ReadonlyMap<number, number>): void {
  if (value && lastReader.has(step)) kept.set(step, value);
  for (const source of kept.keys()) if (source !== step && (lastReader.get(source) ?? 0) <= step) kept.delete(source);
}
