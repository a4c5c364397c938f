/** Gathers what the report shows of one build. */
import { stepCost } from "../ir/cost.js";
import { ditView } from "../ir/graph.js";
import type { Cell } from "../schedules/index.js";
import type { Artifact } from "./artifact.js";
import type { Bench } from "./bench.js";
import type { Compiled } from "./compile.js";
import { differencePicture, latentPicture } from "./picture.js";
import { groupCurves, type PlanSummary } from "./plan.js";
import type { CellKind, Facts, ReportData, ReportPictures } from "./report/index.js";
import type { Trace } from "./trace.js";
import type { Verification } from "./verify.js";
import { VERSION } from "./version.js";

/** Pixels a latent element; small latents are made large enough to be seen. */
const SMALLEST_SIDE = 96;

export interface ReportSources {
  readonly title: string;
  readonly artifact: Artifact;
  readonly trace?: Trace | undefined;
  readonly plan: PlanSummary;
  readonly compiled: Compiled;
  readonly bytes: { readonly model: number; readonly data: number };
  readonly verification: Verification;
  readonly bench?: Bench | undefined;
}

export function reportOf({ title, artifact, trace, plan, compiled, bytes, verification, bench }: ReportSources): ReportData {
  const { job } = artifact;
  const { guidance, batch } = job.context;
  const { branches: costs } = stepCost(job.model);
  const { name, ...options } = facts(plan.policy);
  const { alpha = options["alpha"] } = facts(plan.predicted);
  return {
    title,
    sampler: job.table.name,
    steps: job.table.rows.length,
    guidance: guidance.form === "none" ? "none" : `${guidance.scale}, ${guidance.form} (${guidance.order.join(", ")})`,
    policy: { name: String(name), options },
    settings: { batch, ...(trace ? { "calibration samples": trace.samples.length, "calibration seed": trace.seed } : {}) },
    versions: { smoothcc: VERSION },
    branches: ditView(job.model).branches.map(({ site, kind }) => {
      const { linear = 0, attention = 0 } = costs.get(site) ?? {};
      return { site, kind, macs: linear + attention };
    }),
    cells: new Map([...artifact.plan.cells].map(([site, cells]) => [site, cells.map(cellKind)])),
    curves: trace && groupCurves(trace),
    alpha: typeof alpha === "number" ? alpha : undefined,
    macs: compiled.macs,
    nodes: compiled.nodes,
    bytes,
    cachePeakBytes: compiled.cache.peakBytes,
    times: bench && { ...bench, threads: bench.threads ?? undefined },
    verify: verification,
    pictures: picturesOf(artifact, verification),
  };
}

function cellKind(cell: Cell): CellKind {
  if (cell.kind === "compute") return "compute";
  return cell.terms.length === 1 && cell.terms[0]?.weight === 1 ? "reuse" : "forecast";
}

function facts(record: Readonly<Record<string, unknown>>): Facts {
  const plain: Record<string, string | number | boolean> = {};
  for (const [key, value] of Object.entries(record)) {
    plain[key] = typeof value === "string" || typeof value === "number" || typeof value === "boolean" ? value : JSON.stringify(value);
  }
  return plain;
}

function picturesOf({ job }: Artifact, { latents }: Verification): ReportPictures | undefined {
  const { display } = job.source.recipe;
  if (display?.kind !== "image") return undefined;
  const { shape, cached, uncached } = latents;
  const options = { scale: Math.max(1, Math.ceil(SMALLEST_SIDE / (shape[3] ?? SMALLEST_SIDE))) };
  return {
    cached: latentPicture({ shape, values: cached }, display.range, options),
    uncached: latentPicture({ shape, values: uncached }, display.range, options),
    difference: differencePicture({ shape, values: cached }, { shape, values: uncached }, options),
    caption: `${shape[0] ?? 1} samples.`,
  };
}
