/**
 * A graph of a case file, and the facts of a compilation from the lines `# word: …` at its head:
 *
 *     # latent: x                               the graph is a lifted step: this input is the latent …
 *     # timestep: t                             … this one the time, the other inputs conditions, the first output the prediction
 *     # batch: 1
 *     # dim: tokens = 4                         size of a symbolic dimension
 *     # fix: int64[2] labels = {1, 2}           an input that becomes a constant
 *     # guidance: batched 1.5 cond,uncond       form, scale, order
 *     # guided: {"channels": [0, 3], …}         the rest of the guidance: see `guidedSchema`
 *     # uncond: int64[1] labels = {26}          what the unconditional half sees
 *     # negative: ids                           it sees an input of its own in place of this one: ids_uncond
 *     # before: e (int64[1] ids) => (…) { … }   a network in front of the run, whose ports are values of the run of these names
 *     # after: d (float[1] latent) => (…) { … } one behind it
 *     # keep: no                                the run does not give its latent
 *     # channels: 0 4 @1                        the part of the output that is the prediction, and the axis
 *     # sign: -1                                of the prediction
 *     # precision: float16                      what the network computes in
 *     # steps: 3                                a sampler x' = x − out, with timesteps 30, 20, 10
 *     # row: {"timestep": 30, "x": [[0, 1]], …} or a sampler row by row: see `rowSchema`
 *     # scale: 2                                of the initial latent
 *     # plan: attn-0 = [1, 0, [[0, 2]]]         cells of plan.json
 *     # adjust: attn-0/1/scale = [2, 3]         vectors of its tensors
 */
import { z } from "zod";
import type { Branch } from "../../ir/dit.js";
import type { Graph, Model, Value } from "../../ir/graph.js";
import { type TensorData, tensorOf } from "../../ir/tensor.js";
import { parse } from "../../ir/parse.js";
import { FLOAT_TYPES } from "../../ir/types.js";
import type { AnyContext } from "../../passes/index.js";
import {
  bind,
  CacheMap,
  type Companion,
  type Companions,
  type Condition,
  type Guidance,
  GUIDANCE_FORMS,
  guidedHalves,
  LATENT_VALUE,
  NETWORKS,
  NO_GUIDANCE,
  parseSchedule,
  type Plan,
  RESCALE_FORMS,
  type Row,
  type Run,
  runOf,
  type SamplerTable,
  type ConditionSource,
  uncondInput,
} from "../../schedules/index.js";
import { evaluator } from "../../src/runtime/evaluator.js";

export interface Subject {
  readonly model: Model;
  readonly context: AnyContext;
}

const WORDS = [
  "latent",
  "timestep",
  "batch",
  "dim",
  "fix",
  "guidance",
  "guided",
  "uncond",
  "negative",
  "before",
  "after",
  "keep",
  "channels",
  "sign",
  "precision",
  "steps",
  "row",
  "scale",
  "plan",
  "adjust",
];

/** Throws where a word is unknown or a fact cannot be read. */
export function readSubject(text: string): Subject {
  const facts = new Facts(text);
  const parsed = parse(text);
  const { graph } = parsed;
  const [latent, timestep] = [facts.one("latent"), facts.one("timestep")];
  const branches = branchesOf(graph);
  const dit = {
    recogniser: "case",
    latent: latent ?? "",
    timestep,
    conditions: graph.inputs.map(({ name }) => name).filter((name) => name !== latent && name !== timestep),
    prediction: graph.outputs[0]?.name ?? "",
    branches,
    constant: [],
    guesses: [],
    warnings: [],
  };
  const model = latent === undefined ? parsed : { ...parsed, dit };
  const rows = graph.inputs.find(({ name }) => name === latent)?.type?.shape?.[0];
  const table = tableOf(facts);
  const [from, to, axis] = facts.numbers("channels", /^(\d+) (\d+) @(\d+)$/);
  const guidance = guidanceOf(facts);
  const batch = facts.number("batch", 1);
  const [fixed, uncond] = [facts.tensors("fix"), facts.tensors("uncond")];
  const conditions = dit.conditions.flatMap((name): [string, Condition][] => {
    const type = graph.inputs.find((input) => input.name === name)?.type;
    const isBatched = type !== undefined && type.shape?.[0] === rows;
    const half = isBatched ? { ...type, shape: [batch, ...(type.shape ?? []).slice(1)] } : type;
    const [data, without] = [fixed.get(name), uncond.get(name)];
    const cond: ConditionSource = data ? { kind: "constant", data } : { kind: "input", name };
    if (name === guidance.input) return [];
    return [[name, { type: half, isBatched, halves: { cond, uncond: without ? { kind: "constant", data: without } : cond } }]];
  });
  const halves = guidedHalves(guidance)[0]?.length ?? 1;
  const run = runOf({
    companions: companionsOf(facts, new Set(dit.conditions)),
    networks: new Map([[halves > 1 ? NETWORKS.both : NETWORKS.one, { ...parsed, dit }]]),
    batch,
    conditions: new Map(conditions),
    guidance,
    prediction: {
      channels: from !== undefined && to !== undefined ? [from, to] : undefined,
      channelAxis: axis ?? 1,
      sign: facts.one("sign") === "-1" ? -1 : 1,
    },
    precision: z.enum(FLOAT_TYPES).optional().parse(facts.one("precision")),
    table: table ?? { name: "none", prediction: "epsilon", initialScale: 1, rows: [] },
    structure: "case",
  });
  const sizes = new Map(facts.pairs("dim").map(([name, size]) => [name, Number(size)]));
  if (typeof rows === "string") sizes.set(rows, batch * halves);
  return {
    model,
    context: {
      evaluator: evaluator({ threads: 1 }),
      sizes,
      precision: run.precision,
      run,
      plan: table ? planOf(facts, run) : { of: run.of, cells: new CacheMap() },
    },
  };
}

/** Networks around the run. Inputs that neither the step has nor another network gives are those of networks alone. */
function companionsOf(facts: Facts, known: ReadonlySet<string>): Companions {
  const [before, after] = [facts.all("before"), facts.all("after")].map((lines) => lines.map(companionOf));
  const all = [...(before ?? []), ...(after ?? [])];
  const given = new Set([...all.flatMap(({ outputs }) => [...outputs.keys()]), ...known, LATENT_VALUE]);
  const [negative, uncond] = [facts.all("negative"), facts.tensors("uncond")];
  const inputs = all.flatMap(({ model }) => model.graph.inputs).filter(({ name }) => !given.has(name));
  const condition = ({ name, type }: Value): Condition => {
    const cond: ConditionSource = { kind: "input", name };
    const data = uncond.get(name);
    const own: ConditionSource | undefined = data ? { kind: "constant", data } : undefined;
    const asked: ConditionSource = negative.includes(name) ? { kind: "input", name: uncondInput(name) } : cond;
    return { type, isBatched: false, halves: { cond, uncond: own ?? asked } };
  };
  return {
    before: before ?? [],
    after: after ?? [],
    inputs: new Map(inputs.map((input) => [input.name, condition(input)])),
    keepLatent: facts.one("keep") !== "no",
  };
}

function companionOf(line: string): Companion {
  const model = parse(`<ir_version: 10, opset_import: ["" : 20]>\n${line}`);
  const ports = (all: readonly { readonly name: string }[]): ReadonlyMap<string, string> => new Map(all.map(({ name }) => [name, name]));
  return { name: model.graph.name, model, inputs: ports(model.graph.inputs), outputs: ports(model.graph.outputs) };
}

class Facts {
  private readonly lines: readonly (readonly [word: string, rest: string])[];

  constructor(text: string) {
    const head = text.slice(0, text.indexOf("\n<"));
    this.lines = Array.from(head.matchAll(/^# ([a-z]+): (.+)$/gm), ([, word = "", rest = ""]) => [word, rest] as const);
    const unknown = this.lines.find(([word]) => !WORDS.includes(word));
    if (unknown) throw new Error(`a case knows no '${unknown[0]}'`);
  }

  all(wanted: string): readonly string[] {
    return this.lines.filter(([word]) => word === wanted).map(([, rest]) => rest);
  }

  one(word: string): string | undefined {
    return this.all(word)[0];
  }

  number(word: string, otherwise: number): number {
    return Number(this.one(word) ?? otherwise);
  }

  numbers(word: string, form: RegExp): readonly number[] {
    const rest = this.one(word);
    if (rest === undefined) return [];
    const match = form.exec(rest);
    if (!match) throw new Error(`'${rest}' is no ${word}`);
    return match.slice(1).map(Number);
  }

  pairs(word: string): readonly (readonly [string, string])[] {
    return this.all(word).map((rest) => {
      const at = rest.indexOf(" = ");
      return [rest.slice(0, at), rest.slice(at + 3)] as const;
    });
  }

  /** Constants in the syntax of the graph. */
  tensors(word: string): ReadonlyMap<string, TensorData> {
    const lines = this.all(word);
    const names = lines.map((line) => /(\w+) =/.exec(line)?.[1] ?? "");
    const { graph } = parse(`<ir_version: 10, opset_import: ["" : 20]>\nfacts () => (${names.join(", ")}) <${lines.join(", ")}> {}`);
    return new Map(graph.outputs.flatMap(({ name, value }) => (value.data ? [[name, value.data] as const] : [])));
  }
}

const span = z.tuple([z.int(), z.int()]);
const guidedSchema = z.strictObject({
  scale: z.array(z.number()).optional(),
  interval: span.optional(),
  channels: span.optional(),
  rescale: z.strictObject({ form: z.enum(RESCALE_FORMS), strength: z.number() }).optional(),
  input: z.string().optional(),
  atRunTime: z.boolean().optional(),
});

function guidanceOf(facts: Facts): Guidance {
  const [form, scale, order] = (facts.one("guidance") ?? NO_GUIDANCE.form).split(" ");
  const { scale: scales, ...guided } = guidedSchema.parse(JSON.parse(facts.one("guided") ?? "{}"));
  return {
    form: z.enum(GUIDANCE_FORMS).parse(form),
    scale: scales ?? Number(scale ?? NO_GUIDANCE.scale),
    order: order === "uncond,cond" ? ["uncond", "cond"] : NO_GUIDANCE.order,
    ...guided,
  };
}

const terms = z.array(z.tuple([z.number(), z.number()])).default([]);
const rowSchema = z.strictObject({
  timestep: z.number(),
  inputScale: z.number().default(1),
  /** m_k = x · x_k + out · out_k, clamped. */
  history: z.strictObject({ x: z.number(), out: z.number(), clip: z.number().optional() }).default({ x: 0, out: 1 }),
  x: terms,
  m: terms,
  out: terms,
  noise: z.number().default(0),
  learned: z.strictObject({ min: z.number(), max: z.number() }).optional(),
});

function tableOf(facts: Facts): SamplerTable | undefined {
  const steps = facts.number("steps", 0);
  const euler = Array.from({ length: steps }, (_, k) => ({ timestep: 10 * (steps - k), x: [[k, 1]], m: [[k, -1]] }));
  const given = facts.all("row").map((row): unknown => JSON.parse(row));
  const rows = [...euler, ...given].map((row): Row => {
    const { timestep, inputScale, history, x, m, out, noise, learned } = rowSchema.parse(row);
    const list = (pairs: readonly (readonly [number, number])[]): Row["next"]["x"] => pairs.map(([step, weight]) => ({ step, weight }));
    return { timestep, inputScale, m: history, next: { x: list(x), m: list(m), out: list(out), noise, learned } };
  });
  return rows.length > 0 ? { name: "case", prediction: "epsilon", initialScale: facts.number("scale", 1), rows } : undefined;
}

function planOf(facts: Facts, run: Run): Plan {
  const cells = Object.fromEntries(facts.pairs("plan").map(([site, row]): [string, unknown] => [site, JSON.parse(row)]));
  const vectors = facts.pairs("adjust").map(([name, json]) => [name, z.array(z.number()).parse(JSON.parse(json))] as const);
  const arrays = new Map(vectors.map(([name, vector]) => [name, tensorOf("float", [vector.length], vector)]));
  const json = { format: "smoothcc-plan/2", steps: run.rows.length, cells, tensors: "plan.npz" };
  return bind(
    parseSchedule(json, "case", () => arrays),
    run,
  );
}

/** One branch for each site that is marked. */
function branchesOf(graph: Graph): readonly Branch[] {
  const sites = [...new Set(graph.marks.map(({ site }) => site))];
  return sites.map((site, block) => ({ site, kind: "attn", block, stream: "image", gated: true }));
}
