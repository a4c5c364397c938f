/** A sampling run as a value: everything that determines its result, except the weights and the plan. */
import { textDigest } from "../ir/digest.js";
import type { Half } from "../ir/dit.js";
import { ditView, type Model } from "../ir/graph.js";
import type { TensorData } from "../ir/tensor.js";
import type { FloatType, TensorType } from "../ir/types.js";
import { cachesOf, type CachedBranch } from "./cache.js";
import { guidedHalves, scaleAt, type Guidance } from "./guidance.js";
import { evaluationsThatCount, type SamplerTable } from "./sampler.js";

export interface Run {
  /** The networks that rows call, by name (`Call.network`). Each is one step with all shapes bound and all values typed. */
  readonly networks: ReadonlyMap<string, Model>;
  /** The number of latents that the run produces. A call sees this many rows for each of its halves. */
  readonly batch: number;
  /** The inputs of the networks besides latent, time and scale, by name. */
  readonly conditions: ReadonlyMap<string, Condition>;
  /** Absent if the run makes all of its latents anew. */
  readonly inpaint?: Inpaint | undefined;
  readonly guidance: Guidance;
  readonly prediction: PredictionSlice;
  /** The float type that networks compute in; the exporter's if absent. */
  readonly precision?: FloatType | undefined;
  readonly table: SamplerTable;
  /** What the rows of the sampler's table do with the networks. */
  readonly rows: readonly RunRow[];
  /** The calls of a guided row. All caches belong to one of these. */
  readonly calls: readonly Call[];
  /** In execution order, call by call. */
  readonly caches: readonly CachedBranch[];
  /** The halves that the networks are called for in each row; empty if the sampler does not use the output of the row. */
  readonly called: readonly (readonly Half[])[];
  /** The identity of this run in plans and traces. */
  readonly of: RunIdentity;
}

/** The scale and the network calls of a row. */
export interface RunRow {
  readonly calls: readonly Call[];
  readonly scale: number;
}

/** One evaluation of a network: its name, and the halves that it sees, in the order of its rows. */
export interface Call {
  readonly network: string;
  readonly halves: readonly Half[];
}

/** An input of the network that the sampler does not set. */
export interface Condition {
  /** The type for one half, without guidance doubling. */
  readonly type: TensorType | undefined;
  /** Whether axis 0 counts latents. If so, a call of two halves sees the values of both, concatenated. */
  readonly isBatched: boolean;
  /** The source for each half; the same object if both halves see the same value. */
  readonly halves: Readonly<Record<Half, ConditionSource>>;
}

/** The source of the value that a half sees: an input of the run, or a constant. */
export type ConditionSource = (
  { readonly kind: "input"; readonly name: string } | { readonly kind: "constant"; readonly data: TensorData }
) & {
  /** For each row of the sampler's table, the index of its value along axis 0; absent if all rows see the same value. */
  readonly perStep?: readonly number[] | undefined;
};

/** A value that the run is given and that no network sees: both halves are the same. */
export interface OwnCondition extends Condition {
  readonly name: string;
}

/**
 * What a mask keeps of an original: where it is 0, the latent behind every step is the original's at the level of noise that the latent
 * has, made of the noise that the run starts from.
 */
export interface Inpaint {
  /** The original, of the latent's shape. */
  readonly image: OwnCondition;
  /** From 0, where the original is kept, to 1, where all is made anew; along each axis of size 1, or of that of the latent. */
  readonly mask: OwnCondition;
  /** Whether the run starts from the original at its first level (`startLevel`), and not from noise alone. */
  readonly isStarted: boolean;
}

/** All values that a run is given beside noise, by name, whether networks see them or not. */
export function givenConditions({ conditions, inpaint }: Run): ReadonlyMap<string, Condition> {
  return inpaint ? new Map([...conditions, [inpaint.image.name, inpaint.image], [inpaint.mask.name, inpaint.mask]]) : conditions;
}

/** The condition with its sources changed; halves that share one go on sharing it. */
export function withSources(condition: Condition, change: (source: ConditionSource) => ConditionSource): Condition {
  const { cond, uncond } = condition.halves;
  const changed = change(cond);
  return { ...condition, halves: { cond: changed, uncond: uncond === cond ? changed : change(uncond) } };
}

/** The channels of the network's output that are the prediction, and their sign. */
export interface PredictionSlice {
  readonly channels?: readonly [number, number] | undefined;
  readonly channelAxis: number;
  readonly sign: 1 | -1;
}

/** What identifies the run that a plan or a trace belongs to. */
export interface RunIdentity {
  /** Digest of the exported step, without its weights and its batch (`structureDigest`). */
  readonly structure: string;
  /** Where the network is cut, as text (`parseCut`); absent if not stated. */
  readonly cut?: string | undefined;
  /** The number of steps that the sampler was set up with (`--steps`). A run that starts later only executes the last of them. */
  readonly steps?: number | undefined;
  /** The name of the sampler and the digest of its table. */
  readonly sampler: { readonly name: string; readonly digest: string };
  readonly guidance: { readonly form: string; readonly scale: number | readonly number[] };
}

/** The names of an emitted run's ports that do not come from the network's inputs. */
export interface RunPorts {
  /** The output. */
  readonly latent: string;
  /** The input for what the sampler draws. */
  readonly noise: string;
}

/** `latent` and `noise`; where the network has an input of that name, which keeps it, `run_latent` and `run_noise`. */
export function runPorts(run: Run): RunPorts {
  const taken = new Set([ditView(mainNetwork(run)).latent, ...givenConditions(run).keys()]);
  return { latent: freeName("latent", taken), noise: freeName("noise", taken) };
}

/** A name that is not taken: this one, or with `run_` in front. */
export function freeName(name: string, taken: ReadonlySet<string>): string {
  return taken.has(name) ? freeName(`run_${name}`, taken) : name;
}

/** The names of a run's networks, which are bound to the rows of one half or of both. */
export const NETWORKS = { one: "one half", both: "both halves" } as const;

/** The parts of a run from which all others follow. */
export interface RunFacts extends Omit<Run, "rows" | "calls" | "caches" | "called" | "of"> {
  readonly structure: string;
  readonly cut?: string | undefined;
  readonly steps?: number | undefined;
}

/**
 * The run of these facts. If there is a network for one half, a row with scale 1 leaves out the unconditional half, which would have
 * no weight.
 */
export function runOf({ structure, cut, steps, ...facts }: RunFacts): Run {
  const { networks, guidance, table } = facts;
  const calls = guidedHalves(guidance).map((halves): Call => ({ network: halves.length > 1 ? NETWORKS.both : NETWORKS.one, halves }));
  const [first] = calls;
  const network = first && networks.get(first.network);
  const branches = network?.dit?.branches ?? [];
  const rows = runRowsOf(guidance, table, calls, networks.has(NETWORKS.one));
  const counting = evaluationsThatCount(table);
  const { form, scale } = guidance;
  return {
    ...facts,
    calls,
    rows,
    called: rows.map((row, k) => (counting.has(k) ? row.calls.flatMap(({ halves }) => halves) : [])),
    caches: cachesOf(
      branches,
      calls.map(({ halves }) => halves),
    ),
    of: { structure, cut, steps, sampler: samplerIdentity(table, facts.inpaint !== undefined), guidance: { form, scale } },
  };
}

function runRowsOf(guidance: Guidance, { rows }: SamplerTable, guided: readonly Call[], canDrop: boolean): readonly RunRow[] {
  const alone: readonly Call[] = [{ network: NETWORKS.one, halves: ["cond"] }];
  return rows.map((_, k) => {
    const scale = scaleAt(guidance, k);
    return { scale, calls: scale === 1 && canDrop ? alone : guided };
  });
}

/** The levels of rows only count where something is brought to them. */
function samplerIdentity(table: SamplerTable, usesLevels: boolean): RunIdentity["sampler"] {
  const isIdle = (key: string): boolean => !usesLevels && (key === "level" || key === "corrects");
  const text = JSON.stringify(table, (key, value: unknown) => (isIdle(key) ? undefined : value));
  return { name: table.name, digest: textDigest(text) };
}

/** The same run with another sampler and, if given, other guidance. */
export function sampledBy(run: Run, table: SamplerTable, guidance = run.guidance): Run {
  const { structure, cut, steps } = run.of;
  return runOf({ ...run, structure, cut, steps, table, guidance });
}

/** The same run with its networks transformed. */
export function withNetworks(run: Run, networks: Run["networks"]): Run {
  return { ...run, networks };
}

/** The same run with its main network transformed. */
export function withMainNetwork(run: Run, model: Model): Run {
  const [first] = run.calls;
  return first ? withNetworks(run, new Map([...run.networks, [first.network, model]])) : run;
}

/** The network of a call. */
export function networkOf({ networks }: Pick<Run, "networks">, { network }: Call): Model {
  const found = networks.get(network);
  if (!found) throw new Error(`internal: the run has no network '${network}'`);
  return found;
}

/** The network of the first call in a guided row. It stands for the run wherever one network is needed. */
export function mainNetwork(run: Pick<Run, "networks" | "calls">): Model {
  const [first] = run.calls;
  if (!first) throw new Error("internal: a run without calls");
  return networkOf(run, first);
}

/** The shape of the latent that the run produces: [batch, …]. */
export function latentShape(run: Pick<Run, "networks" | "calls" | "batch">): readonly number[] {
  const network = mainNetwork(run);
  const { latent } = ditView(network);
  const shape = network.graph.inputs.find(({ name }) => name === latent)?.type?.shape ?? [];
  return [run.batch, ...shape.slice(1).map(Number)];
}

/** Rows of the table that add fresh noise, in order. */
export function drawingRows({ rows }: SamplerTable): readonly number[] {
  return rows.flatMap(({ next }, k) => (next.noise === 0 ? [] : [k]));
}

/** The first difference between two runs, with both values; undefined if a plan of one is valid for the other. */
export function differenceOf(
  own: RunIdentity,
  other: RunIdentity,
): { readonly what: string; readonly own: string; readonly other: string } | undefined {
  const samplerText = ({ sampler: { name, digest } }: RunIdentity): string =>
    own.sampler.name === other.sampler.name ? `${name} (${digest})` : name;
  const guidanceText = ({ guidance: { form, scale } }: RunIdentity): string =>
    `${form} ${typeof scale === "number" ? scale : `[${scale.join(", ")}]`}`;
  const facts: readonly (readonly [string, (run: RunIdentity) => string | undefined])[] = [
    ["model", ({ structure }) => structure],
    ["cut", ({ cut }) => cut],
    ["number of steps", ({ steps }) => steps?.toString()],
    ["sampler", samplerText],
    ["guidance", guidanceText],
  ];
  for (const [what, textOf] of facts) {
    const [here, there] = [textOf(own), textOf(other)];
    // A field that one of them does not state cannot differ.
    if (here !== undefined && there !== undefined && here !== there) return { what, own: here, other: there };
  }
  return undefined;
}
