/** `plan TRACE -o PLAN --policy NAME`: chooses what is computed when. */
import { badOption } from "../../ir/diagnostics.js";
import { formatNamed, groupBranches } from "../../schedules/index.js";
import { tracedRun } from "../calibrate.js";
import { assertFree } from "../files.js";
import { openJob, warningsOf, type Job } from "../job.js";
import { inputSpecs, MODEL_OPTIONS, policyOptionsOf, recipeOverrides, runtimeOptions, type Options } from "../options.js";
import { choosePlan, planningFor, planningOf, type Planned, type PlanSummary } from "../plan.js";
import { writePlan } from "../plan-file.js";
import { writeDrawing } from "../raster.js";
import { formatPercent, formatRatio } from "../report/format.js";
import { cellKind, scheduleRows } from "../report/schedule.js";
import { schedulePlot } from "../report/schedule-plot.js";
import { runsOf } from "../runs.js";
import { count, table } from "../text.js";
import { assertSameRun, readTrace } from "../trace.js";
import type { Command, Host } from "./index.js";

export default {
  name: "plan",
  summary: "choose a plan from a trace, or from a model where the policy measures nothing",
  argument: "TRACE",
  options: ["policy", "policyOption", "model", ...MODEL_OPTIONS, "device", "input", "format", "plot", "output", "force"],
  required: ["policy", "output"],
  plans: true,
  async run(argument, options, host) {
    const { output = "", force = false, format = "smoothcc", plot } = options;
    for (const file of [output, ...(plot === undefined ? [] : [plot])]) assertFree(file, force);
    formatNamed(format);
    const chosen = await planned(argument, options, host);
    const { schedule, sites, summary, warnings, evaluations } = chosen;
    for (const warning of warnings) host.warn(warning);
    if (plot !== undefined) await writeDrawing(plot, drawn(chosen), force);
    await writePlan(output, schedule, force, format, sites);
    return { json: { ...summary, evaluations }, text: describePlan(summary, evaluations) };
  },
} satisfies Command;

/** What the policy chooses, and how many evaluations of the network that took. */
async function planned(argument: string, options: Options, host: Host): Promise<Planned & { readonly evaluations: number }> {
  const { policy = "", model } = options;
  const policyOptions = policyOptionsOf(options);
  const runtime = runtimeOptions(options, host.signal);
  const open = async (path: string): Promise<Job> => {
    const job = await openJob(path, recipeOverrides(options), runtime);
    for (const warning of warningsOf(job)) host.warn(warning);
    return job;
  };
  if (!argument.endsWith(".json")) {
    if (model !== undefined) throw badOption("--model", `the argument is a model already: '${argument}'`);
    return { ...(await choosePlan(planningFor(await open(argument)), policy, policyOptions)), evaluations: 0 };
  }
  const trace = readTrace(argument);
  if (model === undefined) return { ...(await choosePlan(planningOf(trace), policy, policyOptions)), evaluations: 0 };
  const job = await open(model);
  assertSameRun(argument, trace, tracedRun(job));
  const runs = runsOf(job, { ...runtime, samples: trace.samples, seed: trace.seed, inputs: inputSpecs(options) });
  try {
    const chosen = await choosePlan({ ...planningFor(job, trace), runs, progress: host.progress }, policy, policyOptions);
    return { ...chosen, evaluations: runs.evaluations() };
  } finally {
    await runs.close();
  }
}

/** The plan as a picture, rows of a kind that agree as one. */
function drawn({ cells, sites, summary: { policy, steps, macs } }: Planned): string {
  const groups = groupBranches(sites).flatMap(({ key, sites: members }) => members.map(({ site }) => ({ site, kind: key })));
  const kinds = new Map([...cells].map(([site, row]) => [site, row.map(cellKind)]));
  const { name, ...settings } = policy;
  const text = (value: unknown): string => (typeof value === "string" ? value : JSON.stringify(value));
  const said = Object.entries(settings).filter(([, value]) => value !== undefined);
  return schedulePlot({
    title: [text(name), ...said.map(([key, value]) => `${key} ${text(value)}`)].join(", "),
    subtitle: `${steps} steps, ${formatPercent(macs.planned / macs.uncached)} of the linear MACs, at most ${formatRatio(macs.bound)} faster`,
    rows: scheduleRows(groups, kinds),
    steps,
  });
}

/** The plan's figures for people. */
function describePlan({ steps, kinds, macs, predicted }: PlanSummary, evaluations: number): string {
  const round = (value: number): string => String(Number(value.toPrecision(4)));
  const rows = Object.entries(kinds).map(([kind, { computed, share, error }]) => [
    kind,
    `${round(computed)} of ${steps} steps`,
    `${(100 * share).toFixed(1)} %`,
    error === undefined ? "–" : error.toFixed(4),
  ]);
  return [
    table([["kind", "computed", "of the MACs", "error of cached values"], ...rows]),
    `${count(macs.planned)} of ${count(macs.uncached)} linear MACs: at most ${macs.bound.toFixed(2)}× faster`,
    ...Object.entries(predicted).map(([what, value]) => `${what}: ${typeof value === "number" ? round(value) : JSON.stringify(value)}`),
    ...(evaluations > 0 ? [`planning took ${evaluations} evaluations of the network`] : []),
  ].join("\n");
}
