/** A sampling run as a value: everything that determines its result, except the weights and the plan. */
import { textDigest } from "../ir/digest.js";
import type { Half } from "../ir/dit.js";
import { ditView, inputValue, type Model, type Value } from "../ir/graph.js";
import { siteTokens } from "../ir/site-tokens.js";
import type { FloatType } from "../ir/types.js";
import { cachesOf, type CachedBranch } from "./cache.js";
import { type Companions, givenBy, NO_COMPANIONS } from "./companions.js";
import type { Condition, OwnCondition } from "./condition.js";
import { guidedHalves, scaleAt, type Guidance } from "./guidance.js";
import { evaluationsThatCount, type SamplerTable } from "./sampler.js";

export interface Run {
  /** The networks that rows call, by name (`networkName`). Each is one step with all shapes bound and all values typed. */
  readonly networks: ReadonlyMap<string, Model>;
  /** For each exported network but the first, the first row that calls it; rising. They have the same inputs and branches. */
  readonly borders: readonly number[];
  /** The number of latents that the run produces. A call sees this many rows for each of its halves. */
  readonly batch: number;
  /** Whether it is made for any number of latents, `batch` being the one that figures are given for. */
  readonly anyBatch?: boolean | undefined;
  /** The inputs of the networks besides latent, time and scale, by name. */
  readonly conditions: ReadonlyMap<string, Condition>;
  /** Networks in front of the run and behind it; none if absent. */
  readonly companions?: Companions | undefined;
  /** Absent if the run starts from noise alone, or from a latent that it is given. */
  readonly original?: Original | undefined;
  readonly guidance: Guidance;
  /** Rows in front of which the run can stop: the latent that they see is an output of the run. */
  readonly stops?: readonly number[] | undefined;
  readonly prediction: PredictionSlice;
  /** The float type that networks compute in; the exporter's if absent. */
  readonly precision?: FloatType | undefined;
  readonly table: SamplerTable;
  /** What the rows of the sampler's table do with the networks. */
  readonly rows: readonly RunRow[];
  /** The calls of a guided row of the first network. All caches belong to one of these, or to the call of another network in its place. */
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
  /** The calls with which all halves are computed, whether guidance needs them in this row or not. */
  readonly all: readonly Call[];
  readonly scale: number;
  /** Whether the scale is an input of the run (`RunPorts.scale`), with `scale` as its default. */
  readonly atRunTime: boolean;
}

/** One evaluation of a network: its name, and the halves that it sees, in the order of its rows. */
export interface Call {
  readonly network: string;
  readonly halves: readonly Half[];
}

/**
 * What a run starts from, at the level of noise that its first row has, and what a mask keeps of it: where that is 0, the latent behind every
 * step is the original's at the level of noise that the latent has, made of the noise that the run starts from.
 */
export interface Original {
  /** The original, of the latent's shape. */
  readonly image: OwnCondition;
  /** From 0, where the original is kept, to 1, where all is made anew; along each axis of size 1, or of that of the latent. */
  readonly mask?: OwnCondition | undefined;
  /** Whether the run starts from the original at its first level (`startLevel`), and not from noise alone. */
  readonly isStarted: boolean;
}

/** The channels of the network's output that are the prediction, and their sign. */
export interface PredictionSlice {
  readonly channels?: readonly [number, number] | undefined;
  readonly channelAxis: number;
  readonly sign: 1 | -1;
}

/** What identifies the run that a plan or a trace belongs to. */
export interface RunIdentity {
  /** Digest of the exported step, without its weights and its batch (`structureDigest`); of several, one digest of theirs. */
  readonly structure: string;
  /** `Run.borders`, if there are several networks. */
  readonly borders?: readonly number[] | undefined;
  /** Where the network is cut, as text (`parseCut`); absent if not stated. */
  readonly cut?: string | undefined;
  /** The number of steps that the sampler was set up with (`--steps`). A run that starts later only executes the last of them. */
  readonly steps?: number | undefined;
  /** The name of the sampler and the digest of its table. */
  readonly sampler: { readonly name: string; readonly digest: string };
  readonly guidance: { readonly form: string; readonly scale: number | readonly number[] };
}

/** The names of the inputs for original and mask, unless a network has inputs of these names. */
export const ORIGINAL_INPUTS = { image: "image_latent", mask: "mask" } as const;

/**
 * All values that a run is given beside noise, by name: conditions but for those that companions give, what companions read, original and
 * mask.
 */
export function givenConditions({
  conditions,
  companions = NO_COMPANIONS,
  original,
}: Pick<Run, "conditions" | "companions" | "original">): ReadonlyMap<string, Condition> {
  const made = givenBy(companions.before);
  const own = [original?.image, original?.mask].flatMap((condition) => (condition ? [[condition.name, condition] as const] : []));
  return new Map([...[...conditions, ...own].filter(([name]) => !made.has(name)), ...companions.inputs]);
}

/** The names of an emitted run's ports that do not come from the network's inputs. */
export interface RunPorts {
  /** The output. */
  readonly latent: string;
  /** The input for what the sampler draws. */
  readonly noise: string;
  /** The input for the guidance scale, a float scalar, in runs that take it. */
  readonly scale: string;
}

/**
 * `latent`, `noise` and `guidance_scale`; where the run has an input of that name, which is the network's or a companion's and keeps it,
 * `run_latent`, `run_noise` and `run_guidance_scale`.
 */
export function runPorts(run: PortFacts): RunPorts {
  return portsBeside([ditView(mainNetwork(run)).latent, ...run.conditions.keys(), ...givenConditions(run).keys()]);
}

/** What the names of a run's ports depend on. */
type PortFacts = Pick<Run, "networks" | "calls" | "conditions" | "companions" | "original">;

/** The ports of a run whose inputs keep these names. */
export function portsBeside(names: readonly string[]): RunPorts {
  const taken = new Set(names);
  return { latent: freeName("latent", taken), noise: freeName("noise", taken), scale: freeName("guidance_scale", taken) };
}

/** A name that is not taken: this one, or with `run_` in front. */
export function freeName(name: string, taken: ReadonlySet<string>): string {
  return taken.has(name) ? freeName(`run_${name}`, taken) : name;
}

/** The guidance scale as an input of the run; undefined if the run has none. */
export function scaleInput(run: PortFacts & Pick<Run, "guidance">): Value | undefined {
  return run.guidance.atRunTime ? inputValue(runPorts(run).scale, { elem: "float", shape: [] }) : undefined;
}

/** The name of the latent that a row of the table sees, where the run can stop in front of it. */
export function stopName(row: number): string {
  return `latent_${row}`;
}

/** The names of the first network as it is bound to the rows of one half or of both. */
export const NETWORKS = { one: "one half", both: "both halves" } as const;

/** The name in `Run.networks` of an exported network, by its place in the order of the rows that call them. */
export function networkName(bound: keyof typeof NETWORKS, place: number): string {
  return place === 0 ? NETWORKS[bound] : `${NETWORKS[bound]} of network ${place + 1}`;
}

/** The place of the network that a row calls. */
export function placeAt(borders: readonly number[], row: number): number {
  return borders.filter((border) => border <= row).length;
}

/** The parts of a run from which all others follow. */
export interface RunFacts extends Omit<Run, "borders" | "rows" | "calls" | "caches" | "called" | "of"> {
  /** None if left out: there is one network. */
  readonly borders?: Run["borders"] | undefined;
  readonly structure: string;
  readonly cut?: string | undefined;
  readonly steps?: number | undefined;
}

/**
 * The run of these facts. If there is a network for one half, a row with scale 1 in every run leaves out the unconditional half, which
 * would have no weight.
 */
export function runOf({ structure, cut, steps, borders = [], ...facts }: RunFacts): Run {
  const { networks, guidance, table } = facts;
  const calls = callsOf(guidance, 0);
  const [first] = calls;
  const network = first && networks.get(first.network);
  const branches = network?.dit?.branches ?? [];
  const tokens = network?.dit ? siteTokens(network) : undefined;
  const rows = runRowsOf(facts, borders);
  const counting = evaluationsThatCount(table);
  const { form, scale } = guidance;
  return {
    ...facts,
    borders,
    calls,
    rows,
    called: rows.map((row, k) => (counting.has(k) ? row.calls.flatMap(({ halves }) => halves) : [])),
    caches: cachesOf(
      branches.map((branch) => ({ ...branch, tokens: tokens?.get(branch.site) })),
      calls.map(({ halves }) => halves),
    ),
    of: {
      ...{ structure, cut, steps, sampler: samplerIdentity(table, facts.original !== undefined), guidance: { form, scale } },
      ...(borders.length > 0 && { borders }),
    },
  };
}

/** The calls of a guided row of the network at a place. */
function callsOf(guidance: Guidance, place: number): readonly Call[] {
  return guidedHalves(guidance).map((halves) => ({ network: networkName(halves.length > 1 ? "both" : "one", place), halves }));
}

function runRowsOf(
  { networks, guidance, table }: Pick<Run, "networks" | "guidance" | "table">,
  borders: readonly number[],
): readonly RunRow[] {
  return table.rows.map((_, k) => {
    const { scale, atRunTime } = scaleAt(guidance, k);
    const place = placeAt(borders, k);
    const all = callsOf(guidance, place);
    const one = networkName("one", place);
    const isAlone = scale === 1 && !atRunTime && networks.has(one);
    return { scale, atRunTime, all, calls: isAlone ? [{ network: one, halves: ["cond"] }] : all };
  });
}

/** The levels of rows only count where something is brought to them. */
function samplerIdentity(table: SamplerTable, usesLevels: boolean): RunIdentity["sampler"] {
  const isIdle = (key: string): boolean => !usesLevels && (key === "level" || key === "corrects");
  const text = JSON.stringify(table, (key, value: unknown) => (isIdle(key) ? undefined : value));
  return { name: table.name, digest: textDigest(text) };
}

/** The same run with another sampler and, if given, other guidance and other borders. */
export function sampledBy(run: Run, table: SamplerTable, guidance = run.guidance, borders = run.borders): Run {
  const { structure, cut, steps } = run.of;
  return runOf({ ...run, structure, cut, steps, table, guidance, borders });
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

/** The network of the first call in a guided row of the first network. It stands for the run wherever one network is needed. */
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
    ["border between networks", ({ borders }) => borders?.join(", ")],
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
