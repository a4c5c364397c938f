/** Lifting: from a plain ONNX graph of one denoising step to the view of it as a diffusion transformer. */
import { dependence } from "../analysis.js";
import { notRecognised } from "../diagnostics.js";
import { type Branch, CONDITION, type DitView, LATENT, type PortGuess, TIME } from "../dit.js";
import { entryAt } from "../entries.js";
import type { Mark, Model, Node, Value } from "../graph.js";
import { isControlFlow } from "../ops.js";
import { assertPlainStep, controlFlow, findPorts, type PortNamesOfTimes, withOneTime } from "../ports.js";
import { loadFolder } from "../registry.js";
import { modulePaths, placed, type PlacedBranch } from "../residual/blocks.js";
import { type Cut, cutAt, type CutSite, type SharedBranch } from "../residual/cut.js";
import { type ResidualBranch, residualStreams, type ResidualStreams, type Tokens } from "../residual/index.js";
import { streamNames } from "../residual/stream-names.js";
import { sweep } from "../rewrite.js";
import { isRecogniser, type Recogniser, type StepFacts } from "../recogniser.js";
import { timesOf } from "../times.js";

export const recognisers = await loadFolder(import.meta.url, isRecogniser);

export type { Cut, SharedBranch };
export { placed, type PlacedBranch };
export type { ResidualBranch, ResidualStreams, Tokens };

/** Options of lifting. Several inputs that take the same time are merged into one. */
export interface LiftOptions extends PortNamesOfTimes {
  /** Where the cacheable sites are. Default: at the branches. */
  readonly cut?: Cut | undefined;
  /** What finding the ports left open, where that was done before and the names are what it found. Default: what it leaves open now. */
  readonly guesses?: readonly PortGuess[] | undefined;
  /** Recognisers that are asked before those of this folder. */
  readonly own?: readonly Recogniser[] | undefined;
}

/**
 * The model with its `dit` view and a mark (step 0) on every branch. Names only matter if `names` gives them, or to choose between
 * inputs that structure cannot tell apart.
 * Throws NOT_RECOGNISED with the nearest miss if no recogniser finds a branch, and what finding the ports throws.
 */
export function lift(read: Model, { cut = { at: "branch" }, own = [], guesses: before, ...asked }: LiftOptions = {}): Model {
  const { graph, names } = withOneTime(read.graph, asked);
  const model = { ...read, graph };
  assertPlainStep(graph);
  const { latent, timestep, prediction, guesses: found } = findPorts(graph, names);
  const guesses = before ?? found;
  const conditions = graph.inputs.filter((input) => input !== latent && input !== timestep);
  const bits = conditionBits(conditions);
  const sources = new Map([[latent, LATENT], ...Array.from(bits, ([input, bit]) => [input, CONDITION | bit] as const)]);
  // A network without a time has it in a vector that was computed outside.
  for (const input of timestep ? [timestep] : timesOf(graph, [latent]).sampleVectors) sources.set(input, TIME);
  const live = sweep({ ...graph, outputs: [prediction] });
  const undecided = live.nodes.find(isControlFlow);
  if (undecided) throw controlFlow(undecided);
  const dependsOn = dependence(live, sources);
  const streams = residualStreams(live, dependsOn);
  const inputs = new Map<number, Value>([[LATENT, latent], ...Array.from(bits, ([input, bit]) => [bit, input] as const)]);
  const labels = streamNames(live, inputs, dependsOn, streams);
  const facts: StepFacts = { graph: live, latent, dependsOn, streams, ...labels };
  const { name, branches } = recognised(facts, own);
  const { graph: whole, sites } = cutAt({ ...graph, outputs: [prediction] }, branches, cut);
  const unchanging = cutAt(graph, placed(streams.constant, labels.streamOf), { at: "branch" }).sites;
  const view = (all: readonly CutSite[]): readonly Branch[] => {
    const names = named(all);
    const paths = modulePaths(all, live.nodes, dependsOn);
    return all.map((one, i) => {
      const { kind, block, stream, gated } = one;
      return { site: names[i] ?? "", kind, block, stream, gated, module: paths.get(one) };
    });
  };
  const seen = view(sites);
  const dit: DitView = {
    recogniser: name,
    latent: latent.name,
    timestep: timestep?.name,
    conditions: conditions.map((input) => input.name),
    prediction: prediction.name,
    branches: seen,
    constant: view(unchanging),
    guesses,
    warnings: [
      ...guesses.map(({ role, option, candidates }) => guessed(role, option, candidates)),
      ...graph.outputs
        .filter((port) => port !== prediction)
        .map((port) => `The output '${port.name}' is not the prediction and is left out.`),
      ...strayWarning(streams.stray),
      ...streams.others.map((node) => `A residual add is of no block (at ${node.opType} '${node.name}').`),
    ],
  };
  const marks = seen.map(({ site }, i): Mark => ({ site, half: "cond", step: 0, value: sites[i]?.value ?? prediction.value }));
  return { ...model, graph: { ...whole, marks }, dit };
}

/** The bits of dependence between which conditions are told apart; the last is shared by those that are left. */
const CONDITION_BITS = Array.from({ length: 27 }, (_, i) => 2 * CONDITION * 2 ** i);

/** A bit for each condition, the lowest for those with most axes, as these hold tokens. */
function conditionBits(conditions: readonly Value[]): ReadonlyMap<Value, number> {
  const rank = ({ type }: Value): number => type?.shape?.length ?? 0;
  const byRank = [...conditions].sort((a, b) => rank(b) - rank(a));
  return new Map(byRank.map((input, i) => [input, entryAt(CONDITION_BITS, Math.min(i, CONDITION_BITS.length - 1))]));
}

/** The first recogniser that finds branches, and those branches. */
function recognised(facts: StepFacts, own: readonly Recogniser[]): { readonly name: string; readonly branches: readonly SharedBranch[] } {
  const { others, resampling } = facts.streams;
  const hint = "Export the denoising network alone, one step, with time as an input.";
  if (resampling)
    throw notRecognised(
      `The stream changes its resolution between blocks, at ${resampling.opType}: this is a U-Net, no transformer.`,
      "Only diffusion transformers are compiled: their stream keeps its tokens from the first block to the last.",
      resampling.name,
    );
  for (const recogniser of [...own, ...recognisers.values()]) {
    const branches = recogniser.recognise(facts);
    if (branches && branches.length > 0) return { name: recogniser.name, branches };
  }
  const [miss] = others;
  const reason = miss
    ? `The nearest is a residual add whose other operand is no attention and no feed-forward network behind one, ${miss.opType} '${miss.name}'.`
    : "On the way from the latent to the prediction, attention or a feed-forward network is nowhere added to the very value that it is computed from.";
  throw notRecognised("No residual branch of a diffusion transformer was found.", `${reason} ${hint}`, miss?.name);
}

function strayWarning(stray: readonly Node[]): readonly string[] {
  const [first] = stray;
  if (!first) return [];
  const count = stray.length === 1 ? "1 attention is" : `${stray.length} attentions are`;
  return [`${count} in no branch and computed at every step (the first is at ${first.opType} '${first.name}').`];
}

function guessed(role: string, option: string, [taken = "", ...others]: readonly string[]): string {
  return `'${taken}' is taken for the ${role}; ${others.map((name) => `'${name}'`).join(", ")} would fit as well: name it as "${option}" in recipe.json.`;
}

/**
 * Unique site names: `kind-block`, prefixed with the stream if there are several, and numbered if a block has several branches of a kind.
 */
function named(sites: readonly CutSite[]): readonly string[] {
  const severalStreams = new Set(sites.map(({ stream }) => stream)).size > 1;
  const taken = new Map<string, number>();
  return sites.map(({ kind, stream, block, last }) => {
    const site = `${severalStreams ? `${stream}_` : ""}${kind}-${block}${last === undefined ? "" : `-${last}`}`;
    const before = taken.get(site) ?? 0;
    taken.set(site, before + 1);
    return before === 0 ? site : `${site}.${before + 1}`;
  });
}
