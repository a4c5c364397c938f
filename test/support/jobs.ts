/** Jobs on the fixtures: the lifted and bound step of an export, its scheduler's table, a batch that the export allows. */
import { readFileSync } from "node:fs";
import { basename, join } from "node:path";
import fc from "fast-check";
import { z } from "zod";
import { ditView, type Model } from "../../ir/graph.js";
import { type Cut, lift } from "../../ir/lift/index.js";
import { readModel } from "../../ir/onnx/index.js";
import {
  type Adjustment,
  type Adjustments,
  bind,
  cacheName,
  type CellArrays,
  type Plan,
  type Schedule,
  type ScheduleCell,
} from "../../schedules/index.js";
import { readJson } from "../../src/files/json.js";
import { type Job, jobOf } from "../../src/job/job.js";
import { networkOf } from "../../src/job/network.js";
import { type Recipe, recipeSchema } from "../../src/job/recipe.js";
import { readNpy } from "../../src/files/npy.js";
import type { Fixture } from "./fixtures.js";

/** `none`: as many latents as the export has rows, with the recorded conditions; `batched`: half as many, for class-conditioned ones. */
export type Form = "none" | "batched";

const configSchema = z.object({
  layout: z.object({ null_class: z.int().optional() }),
  channels: z.object({ channel_axis: z.int(), prediction: z.tuple([z.int(), z.int()]) }),
});

export interface JobSettings {
  readonly steps?: number;
  /** A configuration; the fixture's own if absent. */
  readonly scheduler?: unknown;
  readonly cut?: Cut;
  readonly precision?: Recipe["precision"];
}

/** The class that means no class, of a fixture that has one. */
export function nullClassOf(fixture: Fixture): number | undefined {
  return configOf(fixture).layout.null_class;
}

export async function openFixture(fixture: Fixture, form: Form, { steps = 4, scheduler, cut, precision }: JobSettings = {}): Promise<Job> {
  const read = await readModel(fixture.model);
  const model = lift(read);
  const { channels } = configOf(fixture);
  const rows = readNpy(join(fixture.folder, "inputs", `${fixture.latent}.npy`)).shape[0] ?? 1;
  const { conditions } = ditView(model);
  const [label = ""] = conditions;
  const recorded = new Map(conditions.map((name) => [name, { calibrate: [`inputs/${name}.npy`] }]));
  const config = scheduler ?? readJson(fixture.scheduler);
  const text = JSON.stringify(config);
  // What pipelines pass to these schedulers beside the number of steps.
  const sampling = text.includes('"use_dynamic_shifting":true') ? { mu: 0.8 } : text.includes("FlowMatchEuler") ? { sigmas: "linear" } : {};
  const recipe = recipeSchema.parse({
    model: basename(fixture.model),
    scheduler: config,
    sampling,
    steps,
    batch: form === "batched" ? rows / 2 : rows,
    prediction: { channels: channels.prediction, channelAxis: channels.channel_axis },
    guidance: form === "batched" ? { form, scale: 1.5, uncond: { [label]: nullClassOf(fixture) } } : { form },
    dims: sizesOf(fixture, model),
    precision,
    cut: cut && textOf(cut),
    inputs: form === "batched" ? { [label]: { calibrate: [7, 42] } } : Object.fromEntries(recorded),
  });
  const source = { recipe, folder: fixture.folder, modelFile: fixture.model };
  return jobOf(networkOf(source, read), { threads: 1 });
}

function textOf(cut: Cut): string {
  return cut.at === "ranges" ? cut.ranges.map((range) => range.join("-")).join() : cut.at;
}

/** Sizes of the symbolic dimensions other than the batch, as recorded. */
function sizesOf({ folder }: Fixture, model: Model): Record<string, number> {
  const dims = model.graph.inputs.flatMap(({ name, type }) => {
    const shape = readNpy(join(folder, "inputs", `${name}.npy`)).shape;
    return (type?.shape ?? []).map((dim, axis) => ({ dim, axis, size: shape[axis] ?? 1 }));
  });
  return Object.fromEntries(dims.flatMap(({ dim, axis, size }) => (typeof dim === "string" && axis > 0 ? [[dim, size]] : [])));
}

function configOf({ folder }: Fixture): z.output<typeof configSchema> {
  return configSchema.parse(JSON.parse(readFileSync(join(folder, "config.json"), "utf8")));
}

/** The schedule with these rows, bound to the job. */
export function planOf(
  job: Job,
  cells: Schedule["cells"] = new Map(),
  adjustments?: Adjustments,
): { readonly schedule: Schedule; readonly plan: Plan } {
  const schedule: Schedule = { steps: job.run.rows.length, cells, adjustments };
  return { schedule, plan: bind(schedule, job.run) };
}

/** Rows of cells that are legal, most of them not computed; the weights of forecasts are those of Taylor's, more or less. */
export function randomSchedule(job: Job, seed: number): Schedule {
  const steps = job.run.rows.length;
  const cells = new Map<string, readonly ScheduleCell[]>();
  const choices = fc.array(fc.record({ what: fc.constantFrom("compute", "reuse", "forecast"), order: fc.integer({ min: 1, max: 2 }), bend: fc.integer({ min: -20, max: 20 }) }), { minLength: steps, maxLength: steps }); // prettier-ignore
  const { branches } = ditView(job.model);
  for (const [i, row] of fc.sample(choices, { seed, numRuns: branches.length }).entries()) {
    const computed: number[] = [];
    const cellsOfSite = row.map(({ what, order, bend }, step): ScheduleCell => {
      const [latest, ...earlier] = computed.slice(-1 - order).reverse();
      if (what === "compute" || latest === undefined) computed.push(step);
      if (what === "compute" || latest === undefined) return 1;
      if (what === "reuse") return 0;
      // f(t) ≈ Σ over the newest values; one value is scaled, which differs from reuse.
      const weights = [[1], [2, -1], [3, -3, 1]][earlier.length] ?? [];
      return [latest, ...earlier].map((source, n) => [source, (weights[n] ?? 0) * (1 + bend / 100)] as const);
    });
    cells.set(branches[i]?.site ?? "", cellsOfSite);
  }
  return { steps, cells };
}

/**
 * Rows of cells that are legal, in which most cells compute some tokens: a quarter to three quarters, however they are chosen, the others cached,
 * forecast or moved with them, or all of these; of sites whose tokens can be computed apart.
 */
export function partialSchedule(job: Job, seed: number): Schedule {
  const steps = job.run.rows.length;
  const cells = new Map<string, readonly ScheduleCell[]>();
  const adjustments = new Map<string, Map<number, CellArrays>>();
  const what = fc.record({
    kind: fc.constantFrom("partial", "partial", "partial", "compute", "reuse"),
    share: fc.constantFrom(0.25, 0.5, 0.7),
    by: fc.constantFrom("mask", "stagger", "cluster", "change", "change"),
    isForecast: fc.boolean(),
    move: fc.boolean(),
    kv: fc.constantFrom("fresh", "cached"),
    order: fc.array(fc.nat(), { minLength: 64, maxLength: 64 }),
  });
  const { caches } = job.run;
  const choices = fc.sample(fc.array(what, { minLength: steps, maxLength: steps }), { seed, numRuns: caches.length });
  for (const [i, { name, tokens, kind: branchKind }] of caches.entries()) {
    if (!tokens || tokens.mixer !== undefined || tokens.count < 2) continue;
    const { count } = tokens;
    const row: ScheduleCell[] = [];
    const ofSite = new Map<number, CellArrays>();
    adjustments.set(name, ofSite);
    const canChoose = tokens.choice !== undefined && tokens.choice.mixer === undefined;
    for (const [step, { kind, share, by: wanted, isForecast, move: moves, kv, order }] of (choices[i] ?? []).entries()) {
      if (kind !== "partial" || step === 0) {
        row.push(kind === "reuse" && step > 0 ? 0 : 1);
        continue;
      }
      const by = wanted === "change" && !canChoose ? "stagger" : wanted;
      const move = moves && by !== "change";
      const there = row.flatMap((cell, at) => (cell === 0 ? [] : [at])).slice(-2);
      const [one = 0, other] = [...there].reverse();
      const terms: [number, number][] = isForecast && other !== undefined ? [[one, 1.7], [other, -0.7]] : [[one, 1]]; // prettier-ignore
      const canKeep = kv === "cached" && (tokens.shareWithKeys !== undefined || (branchKind !== "attn" && branchKind !== "single"));
      row.push({ tokens: share, by, ...(canKeep && { kv }), ...(move && { move }), ...(isForecast && { terms }) });
      const size = Math.max(1, Math.round(share * count));
      const chosen = Array.from({ length: count }, (_, token) => token)
        .sort((a, b) => (order[a % 64] ?? 0) - (order[b % 64] ?? 0))
        .slice(0, size)
        .sort((a, b) => a - b);
      const weights = Float32Array.from({ length: count * size }, (_, at) => ((order[at % 64] ?? 0) % 1000) / 2000 / size);
      ofSite.set(step, { tokens: chosen, ...(move && { move: weights }) });
    }
    cells.set(name, row);
  }
  return { steps, cells, adjustments };
}

/** The schedule with a scale, a shift or both at every cached step of every cache, those of two calls apart; large enough to be seen in half precision. */
export function adjusted(job: Job, schedule: Schedule): Schedule {
  const channels = new Map(job.model.graph.marks.map(({ site, value }) => [site, Number(value.type?.shape?.at(-1))]));
  const adjustments = new Map<string, Map<number, Adjustment>>();
  let seed = 0;
  const vector = (site: string, centre: number): Float32Array => {
    const length = channels.get(site) ?? 0;
    return Float32Array.from({ length }, () => centre + 10 * Math.sin(++seed));
  };
  for (const [key, cells] of planOf(job, schedule.cells).plan.cells) {
    const ofSite = new Map<number, Adjustment>();
    for (const [step, { kind }] of cells.entries()) {
      if (kind !== "terms") continue;
      const what = (step + seed) % 3;
      ofSite.set(step, { ...(what === 0 ? {} : { scale: vector(key.site, 1) }), ...(what === 1 ? {} : { shift: vector(key.site, 0) }) });
    }
    adjustments.set(cacheName(key), ofSite);
  }
  return { ...schedule, adjustments };
}
