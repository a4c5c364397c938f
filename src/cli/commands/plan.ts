/** `plan TRACE -o PLAN --policy NAME`: chooses which branches are computed at which steps. */
import { dirname, join, parse } from "node:path";
import { badOption } from "../../../schedules/diagnostics.js";
import { formatNamed, type Measured, type Predicted, type Tradeoff, withGroups } from "../../../schedules/index.js";
import {
  assertBudgetsOpen,
  choosePlan,
  type Comparison,
  comparisonOf,
  front,
  type FrontPoint,
  type Planned,
  type Planning,
  planningForJob,
  planningFromTrace,
  type PlanSummary,
  runsOf,
} from "../../planning/index.js";
import { assertSameRun, readTrace, tracedRun } from "../../calibration/index.js";
import { type Job, loadExtensions, openJob, warningsOf, writePlan } from "../../job/index.js";
import { prepareFile } from "../../files/index.js";
import { formatCount, formatNumber, formatPercent, formatQuantity, formatRatio, table } from "../../words/index.js";
import { inputSpecs, MODEL_OPTIONS, type Options, policyOptionsOf, recipeOverrides, runtimeOptions } from "../options.js";
import { drawnCell, frontPlot, schedulePlot, scheduleRows, writeDrawing } from "../../report/index.js";
import type { Command, Host, CommandResult } from "../command.js";

export default {
  name: "plan",
  summary: "choose a plan from a trace, or from a model where the policy measures nothing",
  argument: "TRACE",
  options: ["policy", "policyOption", "model", ...MODEL_OPTIONS, "device", "input", "format", "front", "plot", "output", "force"],
  required: ["policy", "output"],
  plans: true,
  run: (argument, options, host) => (options.front ? planFront(argument, options.front, options, host) : planOne(argument, options, host)),
} satisfies Command;

async function planOne(argument: string, options: Options, host: Host): Promise<CommandResult> {
  const { output = "", force = false, format = "smoothcc", policy = "", plot } = options;
  for (const file of [output, ...(plot === undefined ? [] : [plot])]) prepareFile(file, force);
  formatNamed(format);
  const chosen = await planned(argument, options, host, (planning) => choosePlan(planning, policy, policyOptionsOf(options)));
  const { schedule, sites, summary, warnings, evaluations } = chosen;
  for (const warning of warnings) host.warn(warning);
  if (plot !== undefined) await writeDrawing(plot, drawn(chosen), force);
  await writePlan(output, schedule, force, format, sites);
  return { json: { ...summary, evaluations }, text: describePlan(summary, evaluations) };
}

/** `--front`: for the output `plan.json`, writes `plan-0.5.json` and so on for each share, and the chart `front.svg` beside them. */
async function planFront(argument: string, shares: readonly number[], options: Options, host: Host): Promise<CommandResult> {
  const { output = "", force = false, format = "smoothcc", policy = "", plot = join(dirname(output), "front.svg") } = options;
  const given = policyOptionsOf(options);
  assertBudgetsOpen("--front", policy, given);
  const { name, ext } = parse(output);
  const fileOf = (share: number): string => join(dirname(output), `${name}-${share}${ext}`);
  for (const file of [...shares.map(fileOf), plot]) prepareFile(file, force);
  formatNamed(format);
  const { points, evaluations } = await planned(argument, options, host, async (planning) => ({
    points: await front(planning, given, shares),
  }));
  for (const warning of new Set(points.flatMap(({ planned }) => planned.warnings))) host.warn(warning);
  for (const { share, planned } of points) await writePlan(fileOf(share), planned.schedule, force, format, planned.sites);
  await writeDrawing(plot, drawnFront(points), force);
  const found = points.map(({ share, planned, comparison }): FrontEntry => {
    const { share: kept, error, interval, candidate } = comparison;
    return { plan: fileOf(share), share: kept, macs: planned.summary.macs, error, interval, candidate };
  });
  return { json: { front: found, plot, evaluations }, text: describeFront(found, plot, evaluations) };
}

/** A plan of a front as JSON. */
interface FrontEntry extends Omit<Comparison, "compared">, Pick<PlanSummary, "macs"> {
  /** Its file. */
  readonly plan: string;
}

/** The choice for the argument, and the number of network evaluations that it cost. */
async function planned<T extends object>(
  argument: string,
  options: Options,
  host: Host,
  choose: (planning: Planning) => Promise<T>,
): Promise<T & { readonly evaluations: number }> {
  const { model } = options;
  const runtime = runtimeOptions(options, host.signal);
  const open = async (path: string): Promise<Job> => {
    const job = await openJob(path, recipeOverrides(options), runtime);
    for (const warning of warningsOf(job)) host.warn(warning);
    return job;
  };
  if (!argument.endsWith(".json")) {
    if (model !== undefined) throw badOption("--model", `the argument is a model already: '${argument}'`);
    return { ...(await choose(planningForJob(await open(argument)))), evaluations: 0 };
  }
  const trace = readTrace(argument);
  if (model === undefined) {
    const { policies } = await loadExtensions(options.extension ?? []);
    return { ...(await choose({ ...planningFromTrace(trace), policies })), evaluations: 0 };
  }
  const job = await open(model);
  assertSameRun(argument, trace, tracedRun(job));
  const runs = runsOf(job, { ...runtime, samples: trace.samples, seed: trace.seed, inputs: inputSpecs(options) });
  try {
    const chosen = await choose({ ...planningForJob(job, trace), runs, progress: host.progress });
    return { ...chosen, evaluations: Math.ceil(runs.evaluations()) };
  } finally {
    await runs.close();
  }
}

/** The plan as a picture. Equal rows of a group are drawn once. */
function drawn({ cells, sites, summary: { policy, steps, macs } }: Planned): string {
  const rows = new Map([...cells.named()].map(([name, row]) => [name, row.map(drawnCell)]));
  const { name, ...settings } = policy;
  const text = (value: unknown): string => (typeof value === "string" ? value : JSON.stringify(value));
  const said = Object.entries(settings).filter(([, value]) => value !== undefined);
  return schedulePlot({
    title: [text(name), ...said.map(([key, value]) => `${key} ${text(value)}`)].join(", "),
    subtitle: `${steps} steps, ${formatPercent(macs.planned / macs.uncached)} of the linear MACs, at most ${formatRatio(macs.bound)} faster`,
    rows: scheduleRows(withGroups(sites), rows),
    steps,
  });
}

/** The front as a picture, with the published plans that its plans were compared with. */
function drawnFront(points: readonly FrontPoint[]): string {
  const published = new Map<string, Tradeoff[]>();
  for (const { comparison } of points)
    for (const [name, measured] of comparison.compared)
      if (measured.isPublished) published.set(name, [...(published.get(name) ?? []), measured]);
  const samples = points.flatMap(({ comparison }) => [...comparison.compared.values()].map(({ samples }) => samples));
  return frontPlot({
    title: "Error over compute",
    subtitle: `${points[0]?.planned.summary.steps ?? 0} steps; means over samples of the calibration (at most ${Math.max(...samples)}) ± 95 % confidence`,
    chosen: points.map(({ comparison }) => comparison),
    published,
  });
}

/** The points of a front for people. */
function describeFront(points: readonly FrontEntry[], plot: string, evaluations: number): string {
  const rows = points.map(({ plan, share, macs, error, interval, candidate }) => [
    plan,
    formatPercent(share),
    formatRatio(macs.bound),
    within({ error, interval }),
    candidate,
  ]);
  return [
    table([["plan", "computed", "faster, at most", "error", "what was chosen"], ...rows]),
    `${plot}: the error over the share of the compute`,
    `planning cost ${formatCount(evaluations)} evaluations of the network`,
  ].join("\n");
}

/** The plan's figures for people. */
function describePlan({ steps, kinds, macs, predicted }: PlanSummary, evaluations: number): string {
  const rows = Object.entries(kinds).map(([kind, { computed, share, error }]) => [
    kind,
    `${formatNumber(computed)} of ${steps} steps`,
    `${(100 * share).toFixed(1)} %`,
    error === undefined ? "–" : error.toFixed(4),
  ]);
  return [
    table([["kind", "computed", "of the MACs", "error of cached values"], ...rows]),
    `${formatQuantity(macs.planned, "MAC")} of ${formatQuantity(macs.uncached, "MAC")} linear: at most ${formatRatio(macs.bound)} faster`,
    ...describePredicted(predicted),
    ...(evaluations > 0 ? [`planning cost ${formatCount(evaluations)} evaluations of the network`] : []),
  ].join("\n");
}

/** The predicted error of a plan and the plans that it was compared with. Longer series of numbers are only in the file. */
function describePredicted(predicted: Predicted): readonly string[] {
  const comparison = comparisonOf(predicted);
  if (!comparison) {
    const single = Object.entries(predicted).filter(([, value]) => typeof value !== "object" || value === null);
    return single.map(([what, value]) => `${what}: ${typeof value === "number" ? formatNumber(value) : String(value)}`);
  }
  const { candidate, compared } = comparison;
  const rows = [...compared].map(([name, { share, samples, ...measured }]) => [
    name === candidate ? `${name} (chosen)` : name,
    formatPercent(share),
    within(measured),
    String(samples),
  ]);
  return [table([["schedule", "computed", "error of the result", "samples"], ...rows])];
}

function within({ error, interval }: Measured): string {
  return interval === undefined ? formatNumber(error) : `${formatNumber(error)} ± ${formatNumber(interval)}`;
}
