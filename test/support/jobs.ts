/** Jobs on the fixtures: the lifted and bound step of an export, its scheduler's table, a batch that the export allows. */
import { readFileSync } from "node:fs";
import { basename, join } from "node:path";
import { z } from "zod";
import { ditView } from "../../ir/graph.js";
import { lift } from "../../ir/lift/index.js";
import { readModel } from "../../ir/onnx/index.js";
import { bind, type Plan, type Schedule } from "../../schedules/index.js";
import { readJson } from "../../src/files.js";
import { bindModel, latentShape, type Job } from "../../src/job.js";
import { recipeSchema, tableOf } from "../../src/recipe.js";
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
  return { ...bound, table: tableOf(source, latentShape(bound)) };
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
