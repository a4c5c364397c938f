/**
 * The oracle: a sampling run as a loop over the exporter's own one-step model. It follows a plan by feeding cached branches
 * from outside and shares no code with `passes/`; what it says is right, an artifact must reproduce.
 */
import { ditView, inputValue, type Model, type Value } from "../../ir/graph.js";
import { entryAt } from "../../ir/entries.js";
import { rewrite, sweep } from "../../ir/rewrite.js";
import { readTensor, type TensorData, tensorFloats, tensorFrom, tensorOf } from "../../ir/tensor.js";
import { elementCount, staticShape } from "../../ir/types.js";
import {
  type Adjustment,
  cacheOf,
  callsAt,
  callsOf,
  type Cell,
  type Half,
  type LearnedVariance,
  type Plan,
  type Rescale,
  type Row,
  scaleAt,
  type Term,
  uncondInput,
} from "../../schedules/index.js";
import { type Job, latentShape, type RunInputs, sampleInputs, type SampleOptions } from "../job/index.js";
import { type RuntimeOptions, type Session, Sessions, type Tensors } from "../runtime/index.js";

/** Called after every step with the values that its computed branches had. */
export type Observer = (step: number, branches: Tensors) => void | Promise<void>;

/** The latents of a run, its history values and outputs, step by step: all that a later step reads but branches. */
export interface Trajectory {
  readonly latents: readonly Float32Array[];
  readonly values: readonly Float64Array[];
  readonly outs: readonly Float64Array[];
}

/** What is done with branches at one step, by site. */
export type Cells = ReadonlyMap<string, Cell>;

/** What a step gives: the values of its computed branches, the history value, the output after guidance, and the next latent. */
export interface Outcome {
  readonly branches: Tensors;
  readonly value: Float64Array;
  readonly out: Float64Array;
  readonly latent: Float32Array;
}

/** A run under way: what it has been through, and what is kept of it for the steps to come. */
export interface Walk extends Trajectory {
  readonly inputs: RunInputs;
  readonly course: Course;
  readonly lastReaders: ReadonlyMap<string, ReadonlyMap<number, number>>;
  readonly history: Map<string, Map<number, TensorData>>;
  readonly latents: Float32Array[];
  readonly values: Float64Array[];
  readonly outs: Float64Array[];
  /** The step that comes next, and how much noise has been drawn before it. */
  step: number;
  draws: number;
}

/** How a run goes, beside what it starts from. */
export interface Course {
  /** Without one every branch is computed at every step. */
  readonly plan?: Plan | undefined;
  /** Sees all halves at every step, also where the guidance has no use for them. */
  readonly observe?: Observer | undefined;
  /** The branches that the observer is shown, of all halves, where not all. */
  readonly only?: ReadonlySet<string> | undefined;
  /** A run that does the same up to a step `from`: from there on it is gone on with. No later step may read a branch of before. */
  readonly begun?: { readonly trajectory: Trajectory; readonly from: number } | undefined;
}

/** The loop of one job. Sessions are opened as plans need them; loops of one network, however it is cut, may share them. */
export class ReferenceLoop {
  private readonly latentShape: readonly number[];

  constructor(
    private readonly job: Job,
    options: RuntimeOptions = {},
    private readonly sessions = new Sessions(options),
  ) {
    this.latentShape = latentShape(job);
  }

  /** Loads the uncached step now rather than at its first run. */
  async open(): Promise<void> {
    for (const model of new Set(callsAt(this.job.context.guidance, 0).map((halves) => this.modelFor(halves)))) {
      await this.sessionFor(model, [], []);
    }
  }

  /** The final latent. */
  async run(inputs: RunInputs, course: Course = {}): Promise<Float32Array> {
    return finalOf(await this.trajectory(inputs, course));
  }

  /** All that the run has been through. */
  async trajectory(inputs: RunInputs, course: Course = {}): Promise<Trajectory> {
    const walk = this.start(inputs, course);
    while (walk.step < this.job.table.rows.length) await this.advance(walk, await this.attempt(walk));
    return walk;
  }

  /** A run before its first step, or before the first one that it does not share with one that has begun. */
  start(inputs: RunInputs, course: Course = {}): Walk {
    const { trajectory, from } = course.begun ?? { from: 0 };
    const { rows, initialScale } = this.job.table;
    return {
      inputs,
      course,
      lastReaders: lastReadersOf(course.plan),
      history: new Map(),
      step: from,
      draws: rows.slice(0, from).filter(({ next }) => next.noise !== 0).length,
      latents: trajectory?.latents.slice(0, from + 1) ?? [Float32Array.from(inputs.noise, (value) => value * initialScale)],
      values: trajectory?.values.slice(0, from) ?? [],
      outs: trajectory?.outs.slice(0, from) ?? [],
    };
  }

  /** What the next step of a run gives, with its plan's cells or, where there are any, with others in their place; the run stays where it is. */
  async attempt({ inputs, course, history, step: k, draws, latents, values, outs }: Walk, others?: Cells): Promise<Outcome> {
    const { table, model, context } = this.job;
    const { guidance, prediction } = context;
    const { plan, observe, only } = course;
    const row = table.rows[k];
    const latent = latents[k];
    if (!row || !latent) throw new Error(`internal: a run has no step ${k}`);
    const cellOf = (name: string): Cell | undefined => others?.get(name) ?? plan?.cells.get(name)?.[k];
    const sites = model.graph.marks.map(({ site }) => site);
    const probed = observe || plan ? sites.filter((site) => only?.has(site) ?? true) : [];
    const branches = new Map<string, TensorData>();
    const predictions = new Map<Half, ArrayLike<number>>();
    let variance: ArrayLike<number> = [];
    for (const halves of observe ? callsOf(guidance) : callsAt(guidance, k)) {
      const results = await this.call(k, halves, latent, inputs, cellOf, history, probed);
      for (const [site, value] of results) if (site !== PREDICTION) branches.set(cacheOf(site, halves), value);
      const output = results.get(PREDICTION);
      if (!output) throw new Error("internal: the step returned no prediction");
      const parts = splitHalves(selectChannels(output, prediction.channels, prediction.channelAxis), halves);
      for (const [half, part] of parts) predictions.set(half, part);
      if (row.next.learned) {
        const from = prediction.channels?.[1] ?? 0;
        const channels = [from, from + entryAt(this.latentShape, prediction.channelAxis)] as const;
        variance = splitHalves(selectChannels(output, channels, prediction.channelAxis), halves).get("cond") ?? variance;
      }
    }
    const out = this.guided(predictions, scaleAt(guidance, k));
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
    return { branches, value, out, latent: new Float32Array(next) };
  }

  /** Takes the step that was attempted. */
  async advance(walk: Walk, { branches, value, out, latent }: Outcome): Promise<void> {
    const { course, history, lastReaders, step } = walk;
    for (const [site, lastReader] of lastReaders) keep(history, site, step, branches.get(site), lastReader);
    if (this.job.table.rows[step]?.next.noise !== 0) walk.draws++;
    walk.outs.push(out);
    walk.values.push(value);
    walk.latents.push(latent);
    walk.step++;
    await course.observe?.(step, branches);
  }

  async close(): Promise<void> {
    await this.sessions.close();
  }

  /** The exporter's step for so many halves. */
  private modelFor(halves: readonly Half[]): Model {
    const { model, context } = this.job;
    const isAlone = context.guidance.form === "batched" && halves.length === 1;
    const found = isAlone ? context.alone : model;
    if (!found) throw new Error("internal: the step has not been bound to one half");
    return found;
  }

  /** One call of the network; answers with its output and, if asked for, with its computed branches. */
  private async call(
    k: number,
    halves: readonly Half[],
    latent: Float32Array,
    inputs: RunInputs,
    cellOf: (name: string) => Cell | undefined,
    history: ReadonlyMap<string, ReadonlyMap<number, TensorData>>,
    probed: readonly string[],
  ): Promise<Tensors> {
    const model = this.modelFor(halves);
    const feeds = new Map<string, TensorData>();
    for (const input of model.graph.inputs) feeds.set(input.name, this.feed(input, k, halves, latent, inputs.conditions));
    const cached: string[] = [];
    for (const { site, value } of model.graph.marks) {
      const name = cacheOf(site, halves);
      const cell = cellOf(name);
      if (cell?.kind !== "terms") continue;
      cached.push(site);
      const rows = staticShape(value.type)?.[0];
      const read = ({ step, weight }: Term): { readonly data: TensorData; readonly weight: number } => {
        const data = history.get(name)?.get(step);
        if (!data) throw new Error(`internal: ${name} has no value that step ${k} could read of step ${step}`);
        // A value of both halves, read where there is one.
        return { weight, data: data.shape[0] === rows ? data : halfOf(data, this.job.context.guidance.order.indexOf("cond")) };
      };
      feeds.set(cacheInput(site), forecast(cell.terms.map(read), cell));
    }
    return (await this.sessionFor(model, cached, probed)).run(feeds);
  }

  /** What an input of the network sees at step `k`. */
  private feed(
    { name, type }: Value,
    k: number,
    halves: readonly Half[],
    latent: Float32Array,
    given: ReadonlyMap<string, TensorData>,
  ): TensorData {
    const { model, table, context } = this.job;
    const view = ditView(model);
    const shape = staticShape(type) ?? [];
    const count = elementCount(shape);
    const elem = type?.elem ?? "float";
    const { inputScale, timestep } = entryAt(table.rows, k);
    if (name === view.latent) {
      const seen = Float32Array.from({ length: count }, (_, i) => (latent[i % latent.length] ?? 0) * inputScale);
      return elem === "float" ? tensorFrom("float", shape, seen) : tensorOf(elem, shape, seen);
    }
    if (name === view.timestep) return tensorOf(elem, shape, new Array<number>(count).fill(timestep));
    if (name === context.guidance.input) return tensorOf(elem, shape, new Array<number>(count).fill(scaleAt(context.guidance, k)));
    const cond = context.fixed.get(name) ?? given.get(name);
    if (!cond) throw new Error(`internal: there is no value for '${name}'`);
    const without = context.uncond.get(name);
    const uncond = without === "input" ? given.get(uncondInput(name)) : (without ?? cond);
    if (!uncond) throw new Error(`internal: there is no value for '${uncondInput(name)}'`);
    const seen = halves.map((half) => ({ cond, uncond })[half]);
    const [first = cond] = seen;
    return elementCount(first.shape) === count ? first : joined(seen, shape);
  }

  /**
   * uncond + scale · (cond − uncond) of the prediction, with its sign; channels without guidance are those of cond, and a
   * rescaled result is as large as cond.
   */
  private guided(predictions: ReadonlyMap<Half, ArrayLike<number>>, scale: number): Float64Array {
    const { guidance, prediction } = this.job.context;
    const cond = Float64Array.from(predictions.get("cond") ?? []);
    const uncond = predictions.get("uncond");
    if (!uncond || scale === 1) return cond.map((value) => prediction.sign * value);
    const channels = entryAt(this.latentShape, prediction.channelAxis);
    const inner = elementCount(this.latentShape.slice(prediction.channelAxis + 1));
    const [from, to] = guidance.channels ?? [0, channels];
    const mixed = cond.map((value, i) => {
      const channel = Math.floor(i / inner) % channels;
      const without = uncond[i] ?? NaN;
      return channel >= from && channel < to ? without + scale * (value - without) : value;
    });
    const result = guidance.rescale ? rescaled(mixed, cond, this.latentShape, guidance.rescale) : mixed;
    return result.map((value) => prediction.sign * value);
  }

  /** The step with the given sites fed from outside, and those of the probed branches that are not as outputs. */
  private sessionFor(model: Model, cachedSites: readonly string[], probed: readonly string[]): Promise<Session> {
    const { cut } = this.job.source.recipe;
    const key = [cut, model === this.job.model ? "" : "alone", probed.join(), cachedSites.join()].join("|");
    return this.sessions.of(key, () => stepWith(model, new Set(cachedSites), new Set(probed)));
  }
}

/** What a row sums up: latents, history values and outputs, by step. */
export type Summands = Readonly<Record<"x" | "m" | "out", (step: number) => ArrayLike<number> | undefined>>;

/** The latent that a row leaves, but for noise. */
export function nextOf({ next }: Row, size: number, { x, m, out }: Summands): Float64Array {
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

const PREDICTION = "prediction";

function cacheInput(site: string): string {
  return `cache:${site}`;
}

/** The step graph with some branches cut off and fed by inputs, and some of the others as outputs. */
function stepWith(model: Model, cached: ReadonlySet<string>, probed: ReadonlySet<string>): Model {
  const { graph } = model;
  const fed = new Map<Value, Value>();
  for (const { site, value } of graph.marks) if (cached.has(site)) fed.set(value, inputValue(cacheInput(site), value.type));
  const cut = rewrite(graph, (node, original) => {
    if (!original.outputs.some((value) => fed.has(value))) return undefined;
    return { nodes: [node], outputs: original.outputs.map((value, i) => fed.get(value) ?? node.outputs[i] ?? value) };
  });
  const [prediction] = cut.outputs;
  if (!prediction) throw new Error("internal: a step without a prediction");
  const probes = cut.marks.filter(({ site }) => probed.has(site) && !cached.has(site));
  const outputs = [{ name: PREDICTION, value: prediction.value }, ...probes.map(({ site, value }) => ({ name: site, value }))];
  return { ...model, graph: sweep({ ...cut, inputs: [...cut.inputs, ...fed.values()], outputs, marks: [] }) };
}

/** For every site, which of its steps are read later, and by which step last. */
function lastReadersOf(plan: Plan | undefined): ReadonlyMap<string, ReadonlyMap<number, number>> {
  const readers = new Map<string, Map<number, number>>();
  for (const [site, cells] of plan?.cells ?? []) {
    const last = new Map<number, number>();
    for (const [step, cell] of cells.entries()) {
      if (cell.kind === "terms") for (const term of cell.terms) last.set(term.step, step);
    }
    readers.set(site, last);
  }
  return readers;
}

/** Keeps a computed value if a later step reads it, and drops those whose last reader has been. */
function keep(
  history: Map<string, Map<number, TensorData>>,
  site: string,
  step: number,
  value: TensorData | undefined,
  lastReader: ReadonlyMap<number, number>,
): void {
  const values = history.get(site) ?? new Map<number, TensorData>();
  history.set(site, values);
  if (value && lastReader.has(step)) values.set(step, value);
  for (const source of values.keys()) if (source !== step && (lastReader.get(source) ?? 0) <= step) values.delete(source);
}

/** scale · Σ weight · value + shift over a site's earlier values; scale and shift have a number for each channel, the last axis. */
function forecast(terms: readonly { readonly data: TensorData; readonly weight: number }[], { scale, shift }: Adjustment): TensorData {
  const [newest] = terms;
  if (!newest) throw new Error("internal: a forecast without terms");
  const { elem, shape } = newest.data;
  if (terms.length === 1 && newest.weight === 1 && !scale && !shift) return newest.data;
  // In the type of the values, as a model would; doubles would take twice the time, and that is most of what a cached step takes.
  const sum = elem === "float" ? new Float32Array(elementCount(shape)) : new Float64Array(elementCount(shape));
  for (const { data, weight } of terms) accumulate(sum, tensorFloats(data), weight);
  const channels = shape.at(-1) ?? 1;
  if (scale) for (const [i, value] of sum.entries()) sum[i] = value * (scale[i % channels] ?? NaN);
  if (shift) for (const [i, value] of sum.entries()) sum[i] = value + (shift[i % channels] ?? NaN);
  return sum instanceof Float32Array ? tensorFrom("float", shape, sum) : tensorOf(elem, shape, sum);
}

/** One of the two halves of axis 0. */
function halfOf(data: TensorData, index: number): TensorData {
  const [rows = 0, ...rest] = data.shape;
  const bytes = readTensor(data);
  const size = bytes.byteLength / 2;
  return { elem: data.elem, shape: [rows / 2, ...rest], content: { kind: "bytes", bytes: bytes.slice(index * size, (index + 1) * size) } };
}

function splitHalves(all: ArrayLike<number>, halves: readonly Half[]): ReadonlyMap<Half, ArrayLike<number>> {
  const size = all.length / halves.length;
  return new Map(halves.map((half, at) => [half, Float64Array.from({ length: size }, (_, i) => all[at * size + i] ?? NaN)]));
}

/** Every group of values (a latent, or one line along the last axis) is brought to the size that it has in `cond`, and mixed in by the strength. */
function rescaled(guided: Float64Array, cond: Float64Array, shape: readonly number[], { form, strength }: Rescale): Float64Array {
  const length = form === "std" ? elementCount(shape.slice(1)) : (shape.at(-1) ?? 1);
  const size = form === "std" ? deviation : norm;
  const result = new Float64Array(guided.length);
  for (let at = 0; at < guided.length; at += length) {
    const group = guided.subarray(at, at + length);
    const ratio = size(cond.subarray(at, at + length)) / size(group);
    for (const [i, value] of group.entries()) result[at + i] = strength * value * ratio + (1 - strength) * value;
  }
  return result;
}

function norm(values: Float64Array): number {
  return Math.sqrt(values.reduce((sum, value) => sum + value * value, 0));
}

/** Of a sample, as torch's `std`. */
function deviation(values: Float64Array): number {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  return norm(values.map((value) => value - mean)) / Math.sqrt(values.length - 1);
}

/** exp(½ (f · max + (1 − f) · min)) with f = (v + 1) / 2. */
function learnedDeviation(v: number, { min, max }: LearnedVariance): number {
  const f = (v + 1) / 2;
  return Math.exp(0.5 * (f * max + (1 - f) * min));
}

function accumulate(sum: Float64Array | Float32Array, values: ArrayLike<number> | undefined, weight: number): void {
  if (!values) throw new Error("internal: the sampler's table points at a step that is not there");
  for (let i = 0; i < sum.length; i++) sum[i] = (sum[i] ?? 0) + weight * (values[i] ?? 0);
}

function selectChannels(data: TensorData, channels: readonly [number, number] | undefined, axis: number): ArrayLike<number> {
  const values = tensorFloats(data);
  if (!channels) return values;
  const have = data.shape[axis] ?? 1;
  const inner = elementCount(data.shape.slice(axis + 1));
  const outer = elementCount(data.shape.slice(0, axis));
  const [from, to] = channels;
  const part = new Float64Array(outer * (to - from) * inner);
  for (let o = 0, at = 0; o < outer; o++) {
    for (let i = from * inner; i < to * inner; i++) part[at++] = values[o * have * inner + i] ?? 0;
  }
  return part;
}

function joined(parts: readonly TensorData[], shape: readonly number[]): TensorData {
  const [first] = parts;
  if (!first) throw new Error("internal: nothing to join");
  const bytes = parts.map((part) => readTensor(part));
  return { elem: first.elem, shape, content: { kind: "bytes", bytes: Uint8Array.from(Buffer.concat(bytes)) } };
}

/** What sample `sample` starts from: noise, or, in a run that starts later, the latent that a whole run without caching has there. */
export async function startOf(job: Job, sample: number, options: SampleOptions & RuntimeOptions): Promise<RunInputs> {
  const inputs = sampleInputs(job, sample, options);
  if (!job.lead || (options.noise && sample === 0)) return inputs;
  const { guidance } = job.context;
  const scale = scaleAt(guidance, 0);
  const context = { ...job.context, guidance: { ...guidance, scale, interval: undefined } };
  const lead = { ...job, context, table: job.lead, lead: undefined };
  const loop = new ReferenceLoop(lead, options);
  try {
    return { ...inputs, noise: await loop.run(sampleInputs(lead, sample, options)) };
  } finally {
    await loop.close();
  }
}
