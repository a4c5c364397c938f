/** Folders of whole pipelines of `test/fixtures/complete`, to be changed, and the runs that diffusers recorded of them. */
import { copyFileSync, cpSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterAll } from "vitest";
import { z } from "zod";
import { tensorNumbers } from "../../ir/tensor.js";
import { drawingRows, type Schedule } from "../../schedules/index.js";
import { type Compiled, compileModel } from "../../src/compile/compile.js";
import { readJson } from "../../src/files/json.js";
import { readNpy } from "../../src/files/npy.js";
import { type Job, openJob, planFor } from "../../src/job/job.js";
import { type RunInputs, sampleInputs } from "../../src/job/run-inputs.js";
import type { RecipeOverrides } from "../../src/job/source.js";

export const COMPLETE = resolve(import.meta.dirname, "..", "fixtures", "complete");
export const RUNTIME = { threads: 1 };

const home = mkdtempSync(join(tmpdir(), "smoothcc-complete-"));
afterAll(() => {
  rmSync(home, { recursive: true, force: true });
});

/**
 * A copy of a family's folder with what the pipeline was given beside it: ids and masks of the prompt to calibrate with, those of the
 * negative prompt as another input, or as part of the model (`uncond`), and tables that an export takes as inputs.
 */
export function folderOf(family: string, negative: "input" | "constant" = "input"): string {
  const folder = join(mkdtempSync(join(home, "x")), family);
  cpSync(join(COMPLETE, family), folder, { recursive: true });
  for (const place of ["calibrate", "uncond", "fix"]) mkdirSync(join(folder, place));
  const reference = join(folder, "reference");
  for (const file of readdirSync(reference)) {
    const [, isNegative, name] = /^(negative_)?((?:input_ids|attention_mask|start_seconds|end_seconds).*)\.npy$/.exec(file) ?? [];
    if (name === undefined) continue;
    const place = !isNegative ? `calibrate/${name}` : negative === "input" ? `calibrate/${name}_uncond` : `uncond/${name}`;
    copyFileSync(join(reference, file), join(folder, `${place}.npy`));
  }
  for (const file of readdirSync(join(reference, "given/0")).filter((name) => name.startsWith("rotary_embedding")))
    copyFileSync(join(reference, "given/0", file), join(folder, "fix", file));
  return folder;
}

/** The elements of an array that was recorded. */
export function numbersIn(folder: string, name: string): readonly number[] {
  return tensorNumbers(readNpy(join(folder, "reference", `${name}.npy`)));
}

/** The job of a family's folder, with as many steps as were recorded. */
export async function opened(folder: string, overrides: RecipeOverrides = {}): Promise<Job> {
  const { steps } = z.object({ steps: z.int() }).parse(readJson(join(folder, "reference/reference.json")));
  return openJob(folder, { steps, ...overrides }, RUNTIME);
}

/** Every second step of every branch is computed, as `fora` with an interval of 2 has it. */
export function everySecond({ run }: Job): Schedule {
  const row = run.rows.map((_, k) => (k % 2 === 0 ? 1 : 0));
  return { steps: run.rows.length, cells: new Map(run.caches.map(({ site }) => [site, row])) };
}

export function compiledFrom(job: Job, schedule = everySecond(job), form?: string): Promise<Compiled> {
  return compileModel(job, planFor(job, schedule), { form });
}

/** What the pipeline started from, and what its scheduler drew. */
export function startIn(folder: string, job: Job): RunInputs {
  const inputs = sampleInputs(job, 0, { noise: readNpy(join(folder, "reference/noise.npy")) });
  const { length } = inputs.noise;
  const rows = drawingRows(job.run.table);
  const drawn = rows.length > 0 ? numbersIn(folder, "step_noise") : [];
  const draws = rows.flatMap((row) => drawn.slice(row * length, (row + 1) * length));
  return draws.length > 0 ? { ...inputs, draws: Float32Array.from(draws) } : inputs;
}
