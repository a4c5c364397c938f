/**
 * The oracle: a sampling run as a loop over the exporter's own one-step model. It follows a plan by feeding cached branches
 * from outside and shares no code with `passes/`; what it says is right, an artifact must reproduce.
 */
import { ditView, inputValue, type Model, type Value } from "../ir/graph.js";
import { rewrite, sweep } from "../ir/rewrite.js";
import { readTensor, tensorFrom, tensorNumbers, tensorOf, type TensorData } from "../ir/tensor.js";
import { elementCount, staticShape } from "../ir/types.js";
import type { Cell, Plan } from "../schedules/index.js";
import { latentShape, type Job } from "./job.js";
import type { RunInputs } from "./run-inputs.js";
import { Session, type RuntimeOptions, type Tensors } from "./runtime.js";

/** Called after every step with the values that its computed branches had. */
export type Observer = (step: number, branches: Tensors) => void | Promise<void>;

/** The loop of one job. Sessions are opened as plans need them and kept until `close`. */
export class ReferenceLoop {
  private readonly sessions = new Map<string, Session>();
  private readonly latentShape: readonly number[];

  constructor(
    private readonly job: Job,
    private readonly options: RuntimeOptions = {},
  ) {
    this.latentShape = latentShape(job);
  }

  /** Loads the uncached step now rather than at its first run. */
  async open(): Promise<void> {
    await this.sessionFor([], false);
  }

  /** The final latent. Without a plan every branch is computed at every step. */
  async run(inputs: RunInputs, plan?: Plan, observe?: Observer): Promise<Float32Array> {
    const { table } = this.job;
    const size = elementCount(this.latentShape);
    const conditions = this.networkConditions(inputs.conditions);
    const history = new Map<string, Map<number, TensorData>>();
    const lastReaders = lastReadersOf(plan);
    let latent = Float32Array.from(inputs.noise, (value) => value * table.initialScale);
    const latents = [latent];
    const values: Float64Array[] = [];
    let draw = 0;
    for (const [k, row] of table.rows.entries()) {
      const cached = cachedAt(plan, k);
      const session = await this.sessionFor([...cached.keys()], observe !== undefined || plan !== undefined);
      const feeds = new Map(conditions);
      this.feedLatent(feeds, latent, row.inputScale, row.timestep);
      for (const [site, cell] of cached) feeds.set(cacheInput(site), forecast(site, k, cell, history.get(site)));
      const results = await session.run(feeds);
      const branches = new Map([...results].filter(([name]) => name !== PREDICTION));
      for (const [site, lastReader] of lastReaders) keep(history, site, k, branches.get(site), lastReader);
      const out = this.guided(results.get(PREDICTION));
      values.push(Float64Array.from(out, (value, i) => row.m.x * (latent[i] ?? 0) + row.m.out * value));
      const next = new Float64Array(size);
      for (const term of row.next.x) accumulate(next, latents[term.step], term.weight);
      for (const term of row.next.m) accumulate(next, values[term.step], term.weight);
      if (row.next.noise !== 0) accumulate(next, inputs.draws?.subarray(draw * size, ++draw * size), row.next.noise);
      latent = Float32Array.from(next);
      latents.push(latent);
      await observe?.(k, branches);
    }
    return latent;
  }

  async close(): Promise<void> {
    for (const session of this.sessions.values()) await session.close();
    this.sessions.clear();
  }

  /** Conditions as the network takes them: under batched guidance, both halves in the recipe's order. */
  private networkConditions(given: ReadonlyMap<string, TensorData>): Map<string, TensorData> {
    const { model, context } = this.job;
    const fed = new Map<string, TensorData>();
    for (const input of model.graph.inputs) {
      const cond = context.fixed.get(input.name) ?? given.get(input.name);
      if (!cond) continue;
      const whole = staticShape(input.type) ?? [];
      const doubled = elementCount(whole) === 2 * elementCount(cond.shape);
      const uncond = context.uncond.get(input.name) ?? cond;
      const halves = context.guidance.order.map((half) => (half === "cond" ? cond : uncond));
      fed.set(input.name, doubled ? joined(halves, whole) : cond);
    }
    return fed;
  }

  private feedLatent(feeds: Map<string, TensorData>, latent: Float32Array, scale: number, timestep: number): void {
    const { graph } = this.job.model;
    const view = ditView(this.job.model);
    for (const { name, type } of graph.inputs) {
      const shape = staticShape(type) ?? [];
      const count = elementCount(shape);
      if (name === view.latent) {
        const seen = Float32Array.from({ length: count }, (_, i) => (latent[i % latent.length] ?? 0) * scale);
        feeds.set(name, type?.elem === "float" ? tensorFrom("float", shape, seen) : tensorOf(type?.elem ?? "float", shape, seen));
      } else if (name === view.timestep) {
        feeds.set(name, tensorOf(type?.elem ?? "float", shape, new Array<number>(count).fill(timestep)));
      }
    }
  }

  /** uncond + scale · (cond − uncond) of the prediction's channels, with its sign. */
  private guided(output: TensorData | undefined): Float64Array {
    if (!output) throw new Error("internal: the step returned no prediction");
    const { guidance, prediction } = this.job.context;
    const all = selectChannels(output, prediction.channels, prediction.channelAxis);
    const size = elementCount(this.latentShape);
    if (guidance.form !== "batched") return Float64Array.from(all, (value) => prediction.sign * value);
    const cond = guidance.order.indexOf("cond") * size;
    const uncond = guidance.order.indexOf("uncond") * size;
    return Float64Array.from({ length: size }, (_, i) => {
      const without = all[uncond + i] ?? 0;
      return prediction.sign * (without + guidance.scale * ((all[cond + i] ?? 0) - without));
    });
  }

  /** The step with the given sites fed from outside, and the other branches as outputs if asked for. */
  private async sessionFor(cachedSites: readonly string[], probe: boolean): Promise<Session> {
    const key = `${probe}|${cachedSites.join()}`;
    const known = this.sessions.get(key);
    if (known) return known;
    // Every session has its own copy of the weights.
    for (const [oldest, unused] of [...this.sessions].slice(0, Math.max(0, this.sessions.size + 1 - MOST_SESSIONS))) {
      this.sessions.delete(oldest);
      await unused.close();
    }
    const session = await Session.open(stepWith(this.job.model, new Set(cachedSites), probe), { ...this.options, optimise: "all" });
    this.sessions.set(key, session);
    return session;
  }
}

const PREDICTION = "prediction";
const MOST_SESSIONS = 3;

function cacheInput(site: string): string {
  return `cache:${site}`;
}

/** The step graph with some branches cut off and fed by inputs. */
function stepWith(model: Model, cached: ReadonlySet<string>, probe: boolean): Model {
  const { graph } = model;
  const fed = new Map<Value, Value>();
  for (const { site, value } of graph.marks) if (cached.has(site)) fed.set(value, inputValue(cacheInput(site), value.type));
  const cut = rewrite(graph, (node, original) => {
    if (!original.outputs.some((value) => fed.has(value))) return undefined;
    return { nodes: [node], outputs: original.outputs.map((value, i) => fed.get(value) ?? node.outputs[i] ?? value) };
  });
  const [prediction] = cut.outputs;
  if (!prediction) throw new Error("internal: a step without a prediction");
  const probes = probe ? cut.marks.filter(({ site }) => !cached.has(site)).map(({ site, value }) => ({ name: site, value })) : [];
  const outputs = [{ name: PREDICTION, value: prediction.value }, ...probes];
  return { ...model, graph: sweep({ ...cut, inputs: [...cut.inputs, ...fed.values()], outputs, marks: [] }) };
}

function cachedAt(plan: Plan | undefined, step: number): ReadonlyMap<string, Cell & { readonly kind: "terms" }> {
  const cached = new Map<string, Cell & { readonly kind: "terms" }>();
  for (const [site, cells] of plan?.cells ?? []) {
    const cell = cells[step];
    if (cell?.kind === "terms") cached.set(site, cell);
  }
  return cached;
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

/** Σ weight · value over the site's earlier values. */
function forecast(
  site: string,
  step: number,
  cell: Cell & { readonly kind: "terms" },
  history: ReadonlyMap<number, TensorData> | undefined,
): TensorData {
  const [first] = cell.terms;
  const newest = first && history?.get(first.step);
  if (!newest) throw new Error(`internal: ${site} has no value that step ${step} could read`);
  if (cell.terms.length === 1 && first.weight === 1) return newest;
  const sum = new Float64Array(elementCount(newest.shape));
  for (const { step: source, weight } of cell.terms) {
    const value = history?.get(source);
    if (!value) throw new Error(`internal: ${site} has no value at step ${source}`);
    accumulate(sum, floats(value), weight);
  }
  return tensorOf(newest.elem, newest.shape, Float32Array.from(sum));
}

function accumulate(sum: Float64Array, values: ArrayLike<number> | undefined, weight: number): void {
  if (!values) throw new Error("internal: the sampler's table points at a step that is not there");
  for (let i = 0; i < sum.length; i++) sum[i] = (sum[i] ?? 0) + weight * (values[i] ?? 0);
}

function floats(data: TensorData): ArrayLike<number> {
  const { content } = data;
  if (data.elem === "float" && content.kind === "bytes" && content.bytes.byteOffset % 4 === 0) {
    return new Float32Array(content.bytes.buffer, content.bytes.byteOffset, content.bytes.byteLength / 4);
  }
  return tensorNumbers(data);
}

function selectChannels(data: TensorData, channels: readonly [number, number] | undefined, axis: number): ArrayLike<number> {
  const values = floats(data);
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
