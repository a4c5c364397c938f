/** A sampling run as a value: everything that decides its numbers, beside weights and plan. */
import { textDigest } from "../ir/digest.js";
import type { Half } from "../ir/dit.js";
import { ditView, type Model } from "../ir/graph.js";
import type { TensorData } from "../ir/tensor.js";
import type { FloatType, TensorType } from "../ir/types.js";
import { cachesOf, type CachedBranch } from "./cache.js";
import { guidedHalves, scaleAt, type Guidance } from "./guidance.js";
import { evaluationsThatCount, type SamplerTable } from "./sampler.js";

export interface Run {
  /** The networks that rows call, by the names that calls have for them: one step each, every shape bound, every value typed. */
  readonly networks: ReadonlyMap<string, Model>;
  /** Latents that leave the run. A call sees as many rows for each of its halves. */
  readonly batch: number;
  /** What networks see beside latent, time and scale, by the name of their input. */
  readonly conditions: ReadonlyMap<string, Condition>;
  readonly guidance: Guidance;
  readonly prediction: PredictionSlice;
  /** The float type that networks compute in; the exporter's if absent. */
  readonly precision?: FloatType | undefined;
  readonly table: SamplerTable;
  /** Where rows of the table differ beside what the table says of them. */
  readonly rows: readonly RunRow[];
  /** The calls of a row that is guided: all that have caches. */
  readonly calls: readonly Call[];
  /** In execution order, call by call. */
  readonly caches: readonly CachedBranch[];
  /** The halves that the networks are called for at each row; none where the sampler does not use what they give. */
  readonly called: readonly (readonly Half[])[];
  /** What plans and traces say of the run that they are of. */
  readonly of: RunIdentity;
}

/** What a row does: the one place where a step differs from another. */
export interface RunRow {
  readonly calls: readonly Call[];
  readonly scale: number;
}

/** One evaluation of a network: which, and the halves that it sees, in the order of its rows. */
export interface Call {
  readonly network: string;
  readonly halves: readonly Half[];
}

/** An input of the network that the sampler does not set. */
export interface Condition {
  /** As one half sees it: without guidance doubling. */
  readonly type: TensorType | undefined;
  /** Whether axis 0 counts latents: a call of two halves sees both of it, one behind the other. */
  readonly isBatched: boolean;
  /** What each half sees; the same object where both see the same. */
  readonly halves: Readonly<Record<Half, ConditionSource>>;
}

/** Where what a half sees comes from: an input of the run, or a constant. */
export type ConditionSource = { readonly kind: "input"; readonly name: string } | { readonly kind: "constant"; readonly data: TensorData };

/** What the network's combined output means: which of its channels are the prediction, and with which sign. */
export interface PredictionSlice {
  readonly channels?: readonly [number, number] | undefined;
  readonly channelAxis: number;
  readonly sign: 1 | -1;
}

/** By what a plan knows the run that it is of. */
export interface RunIdentity {
  /** Digest of the step as it was exported, its weights and its batch apart. */
  readonly structure: string;
  /** Where the network is cut, in words; absent where nobody said. */
  readonly cut?: string | undefined;
  /** Steps that the sampler was set up with, as `--steps` takes them; of these a run that starts late makes the last. */
  readonly steps?: number | undefined;
  /** Name of the sampler, and digest of its table. */
  readonly sampler: { readonly name: string; readonly digest: string };
  readonly guidance: { readonly form: string; readonly scale: number | readonly number[] };
}

/** The ports of an emitted run that are not named by the network's inputs. */
export const RUN_PORTS = { latent: "latent", noise: "noise" } as const;

/** The networks of a run are bound to the rows of one half, or of both. */
export const NETWORKS = { one: "one half", both: "both halves" } as const;

/** What a run is made of; the rest follows. */
export interface RunFacts extends Omit<Run, "rows" | "calls" | "caches" | "called" | "of"> {
  readonly structure: string;
  readonly cut?: string | undefined;
  readonly steps?: number | undefined;
}

/**
 * The run of these facts. A row at scale 1 leaves the unconditional half out, where there is a network for one half: it would
 * weigh nothing.
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
    of: { structure, cut, steps, sampler: samplerIdentity(table), guidance: { form, scale } },
  };
}

function runRowsOf(guidance: Guidance, { rows }: SamplerTable, guided: readonly Call[], canDrop: boolean): readonly RunRow[] {
  const alone: readonly Call[] = [{ network: NETWORKS.one, halves: ["cond"] }];
  return rows.map((_, k) => {
    const scale = scaleAt(guidance, k);
    return { scale, calls: scale === 1 && canDrop ? alone : guided };
  });
}

function samplerIdentity(table: SamplerTable): RunIdentity["sampler"] {
  return { name: table.name, digest: textDigest(JSON.stringify(table)) };
}

/** The same run with another sampler, or other guidance over it. */
export function sampledBy(run: Run, table: SamplerTable, guidance = run.guidance): Run {
  const { structure, cut, steps } = run.of;
  return runOf({ ...run, structure, cut, steps, table, guidance });
}

/** The same run over other forms of its networks. */
export function withNetworks(run: Run, networks: Run["networks"]): Run {
  return { ...run, networks };
}

/** The same run over another form of its main network. */
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

/** The network as the first call of a guided row sees it: what the run is shown by. */
export function mainNetwork(run: Pick<Run, "networks" | "calls">): Model {
  const [first] = run.calls;
  if (!first) throw new Error("internal: a run without calls");
  return networkOf(run, first);
}

/** The shape of the latent that leaves the run: [batch, …]. */
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

/** What two runs differ in, in words, and what each has there; nothing where a plan of the one is a plan of the other. */
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
    // What one of them does not say cannot differ.
    if (here !== undefined && there !== undefined && here !== there) return { what, own: here, other: there };
  }
  return undefined;
}
