/** Jobs on the fixtures: the lifted and bound step of an export, its scheduler's table, a batch that the export allows. */
import { readFileSync } from "node:fs";
import { basename, join } from "node:path";
import fc from "fast-check";
import { z } from "zod";
import { ditView } from "../../ir/graph.js";
import { lift } from "../../ir/lift/index.js";
import { readModel } from "../../ir/onnx/index.js";
import { bind, type Plan, type Schedule, type ScheduleCell } from "../../schedules/index.js";
import { readJson } from "../../src/files.js";
import { bindModel, latentShape, type Job } from "../../src/job.js";
import { recipeSchema, samplingOf } from "../../src/recipe.js";
import { fixtures, type Fixture } from "./fixtures.js";

/** The exports have two rows: either two latents, or one latent with guidance in one call. */
export type Form = "none" | "batched";

const configSchema = z.object({ layout: z.object({ null_class: z.int() }) });

export interface JobSettings {
  readonly steps?: number;
  /** A configuration; the fixture's own if absent. */
  readonly scheduler?: unknown;
}

export async function openFixture(fixture: Fixture, form: Form, { steps = 4, scheduler }: JobSettings = {}): Promise<Job> {
  const model = lift(await readModel(fixture.model));
  const { null_class: nullClass } = configSchema.parse(JSON.parse(readFileSync(join(fixture.folder, "config.json"), "utf8"))).layout;
  const [label = ""] = ditView(model).conditions;
  const recipe = recipeSchema.parse({
    model: basename(fixture.model),
    scheduler: scheduler ?? readJson(schedulerFile(fixture)),
    steps,
    batch: form === "batched" ? 1 : 2,
    guidance: form === "batched" ? { form, scale: 1.5, uncond: { [label]: nullClass } } : { form },
    inputs: { [label]: { calibrate: [7, 42] } },
  });
  const source = { recipe, folder: fixture.folder, modelFile: fixture.model };
  const bound = await bindModel(source, model, { threads: 1 });
  return { ...bound, ...samplingOf(source, latentShape(bound)) };
}

/** The fixture's own; DDPM with learned variances is no linear sampler, so that DDIM on the same betas stands for it. */
function schedulerFile(fixture: Fixture): string {
  const isLinear = !readFileSync(fixture.scheduler, "utf8").includes("learned_range");
  return isLinear ? fixture.scheduler : (fixtures.find(({ name }) => name.startsWith("dit/"))?.scheduler ?? "");
}

/** The schedule with these rows, bound to the job. */
export function planOf(job: Job, cells: Schedule["cells"] = new Map()): { readonly schedule: Schedule; readonly plan: Plan } {
  const schedule: Schedule = { steps: job.table.rows.length, cells };
  return { schedule, plan: bind(schedule, job.table, ditView(job.model).branches, job.context.guidance) };
}

/** Rows of cells that are legal, most of them not computed; the weights of forecasts are those of Taylor's, more or less. */
export function randomSchedule(job: Job, seed: number): Schedule {
  const steps = job.table.rows.length;
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
