/** Collects the data of an artifact's report. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { totalMacs } from "../../ir/cost.js";
import { type Guidance, policies, withGroups } from "../../schedules/index.js";
import { type Artifact, type Bench, FILES, sizesOf, type Verification } from "../artifact/index.js";
import { branchWork, comparisonOf, groupCurves, planningForJob } from "../planning/index.js";
import { displayOf } from "./media.js";
import { channelsFirst, differencePicture, type Latent, latentPicture } from "./picture.js";
import type { Facts, ReportData, ReportPictures } from "./render.js";
import { drawnCell } from "./schedule.js";
import { readTrace } from "../calibration/index.js";
import { counted } from "../words/index.js";

/** The smallest side of a picture in pixels: small latents are enlarged. */
const SMALLEST_SIDE = 96;

export interface ReportSources {
  readonly title: string;
  readonly artifact: Artifact;
  readonly verification: Verification;
  readonly bench?: Bench | undefined;
}

export function reportOf({ title, artifact, verification, bench }: ReportSources): ReportData {
  const { job, schedule, manifest, folder } = artifact;
  const { guidance, batch, table, borders } = job.run;
  const traceFile = join(folder, FILES.trace);
  const trace = existsSync(traceFile) ? readTrace(traceFile) : undefined;
  const { name, ...options } = facts(schedule.policy ?? {});
  const threshold = policies.get(String(name))?.threshold;
  const alpha = threshold !== undefined && (schedule.predicted?.[threshold] ?? options[threshold]);
  return {
    title,
    sampler: table.name,
    steps: table.rows.length,
    guidance: guidanceText(guidance),
    policy: name === undefined ? undefined : { name: String(name), options },
    settings: {
      batch,
      ...(borders.length > 0 ? { "the next network from evaluation": borders.join(", ") } : {}),
      ...(job.steps === table.rows.length ? {} : { "sampler steps, of more than one evaluation": job.steps }),
      ...(trace ? { "calibration samples": trace.samples.length, "calibration seed": trace.seed } : {}),
    },
    versions: { smoothcc: manifest.smoothcc },
    branches: withGroups(branchWork(planningForJob(job), artifact.plan.cells)).map(({ name, group, uncached, planned }) => ({
      site: name,
      group,
      uncached: totalMacs(uncached),
      emitted: totalMacs(planned),
    })),
    cells: new Map([...artifact.plan.cells.named()].map(([name, cells]) => [name, cells.map(drawnCell)])),
    curves: trace && groupCurves(trace),
    alpha: typeof alpha === "number" ? alpha : undefined,
    macs: manifest.macs,
    nodes: manifest.nodes,
    bytes: sizesOf(folder),
    cachePeakBytes: manifest.cache.peakBytes,
    times: bench,
    verify: verification,
    comparison: comparisonOf(schedule.predicted),
    pictures: picturesOf(artifact, verification),
  };
}

/** `1.5 at steps 3 to 20, batched (cond, uncond), rescaled by std`; `1.5 unless another is given` where the scale is an input. */
function guidanceText({ form, scale, interval, order, rescale, atRunTime }: Guidance): string {
  if (form === "none") return "none";
  const built = typeof scale === "number" ? `${scale}` : `${Math.min(...scale)} to ${Math.max(...scale)}`;
  const scales = atRunTime ? `${built} unless another is given` : built;
  const steps = interval ? ` at steps ${interval[0]} to ${interval[1] - 1}` : "";
  return `${scales}${steps}, ${form}${form === "batched" ? ` (${order.join(", ")})` : ""}${rescale ? `, rescaled by ${rescale.form}` : ""}`;
}

function facts(record: Readonly<Record<string, unknown>>): Facts {
  const plain: Record<string, string | number | boolean> = {};
  for (const [key, value] of Object.entries(record)) {
    plain[key] = typeof value === "string" || typeof value === "number" || typeof value === "boolean" ? value : JSON.stringify(value);
  }
  return plain;
}

function picturesOf({ job }: Artifact, { shown }: Verification): ReportPictures | undefined {
  const { recipe } = job.source;
  if (recipe.display?.kind !== "image") return undefined;
  const display = displayOf(recipe);
  const drawn = (values: Float32Array): Latent => channelsFirst({ shape: shown.shape, values }, display);
  const [cached, uncached] = [drawn(shown.cached), drawn(shown.uncached)];
  const [samples = 1, , , width = SMALLEST_SIDE] = cached.shape;
  const options = { scale: Math.max(1, Math.ceil(SMALLEST_SIDE / width)) };
  return {
    cached: latentPicture(cached, display.range, options),
    uncached: latentPicture(uncached, display.range, options),
    difference: differencePicture(cached, uncached, options),
    caption: `${counted(samples, "sample")}.`,
  };
}
