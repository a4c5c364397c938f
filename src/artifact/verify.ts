/** Verifies that an artifact computes what its plan says, and measures the difference from the result without caching. */
import { join } from "node:path";
import { damagesOf, FILES } from "./manifest.js";
import { type Artifact, ArtifactSession, feedsOf, jobAtBatch, runSegments } from "./artifact.js";
import {
  givenConditions,
  type Guidance,
  latentShape,
  mean,
  placeAt,
  psnr,
  rangeOf,
  relativeL2,
  type Run,
  runPorts,
  scaleInput,
  typeFor,
} from "../../schedules/index.js";
import { allNetworks, drawnFor, type Job, planFor, type RunInputs, type SampleOptions } from "../job/index.js";
import { entryAt } from "../../ir/entries.js";
import { readTensor, type TensorData, tensorFrom, tensorNumbers, tensorOf } from "../../ir/tensor.js";
import { elementCount, type ElementType, type FloatType, isFloatType, staticShape } from "../../ir/types.js";
import { isWidened, runnable } from "../../passes/index.js";
import type { Progress } from "../words/index.js";
import {
  decoded,
  encoded,
  exportedFirstStep,
  type FirstCall,
  liftedFirstStep,
  pixelDistance,
  ReferenceLoop,
  startOf,
  strayCuts,
} from "../reference/index.js";
import { AS_WRITTEN, assertKernels, type RuntimeOptions, Sessions, type Tensors } from "../runtime/index.js";

interface Tolerance {
  /**
   * The largest relative L2 difference between artifact and loop. In measurements, rounding to float16 changed latents by 1.1e-3 over 4
   * steps, and by 5e-4 where the CPU skips some roundings. bfloat16 has three bits less.
   */
  readonly limit: number;
  /**
   * A network that rounds inside, as a quantised one does, jumps where a value lies between two integers: results of kernels that differ by
   * rounding errors then differ much more, though both are right. How much is measured where an artifact is beyond the limit: the noise
   * is changed by this relative size, which is that of rounding errors.
   */
  readonly nudge: number;
}

/** By the coarsest type that artifact or loop computes in. */
const TOLERANCES: Readonly<Record<FloatType, Tolerance>> = {
  float: { limit: 1e-5, nudge: 1e-6 },
  float16: { limit: 5e-3, nudge: 1e-3 },
  bfloat16: { limit: 4e-2, nudge: 8e-3 },
};

/** The least and the largest value of a pixel. */
const PIXEL_RANGE = [0, 255] as const;

/** The largest number of such changes that are tried: a value may jump in one and not in another. */
const TRIES = 8;

/** An artifact may be this many times as far from the loop as the loop is from itself after a change, within the largest limit. */
const MARGIN = 2;

export interface VerifyOptions extends RuntimeOptions, SampleOptions {
  /** Default: 1. */
  readonly samples?: number | undefined;
  /** The result of `checkFiles`, if it has run. */
  readonly files?: Check | undefined;
  readonly progress?: Progress | undefined;
}

export interface Check {
  readonly name: string;
  readonly relL2: number;
  readonly limit: number;
  readonly ok: boolean;
  /** Why it failed, if the number does not show it. */
  readonly problem?: string | undefined;
  /** Where the limit follows from a measurement: how far the loop's own result moves when the noise changes by as much as rounding does. */
  readonly sensitivity?: number | undefined;
  /** What was measured, and what was compared with if it is not the original as it is. */
  readonly note?: string | undefined;
}

export interface Verification {
  readonly ok: boolean;
  readonly checks: readonly Check[];
  /** Of what is `shown`, the artifact's against that of the loop without caching; PSNR in dB. */
  readonly fidelity: { readonly relL2: number; readonly psnr: number; readonly samples: number };
  /** What the first sample came to with and without caching: what the last network behind the run gives, or the latent. */
  readonly shown: { readonly shape: readonly number[]; readonly cached: Float32Array; readonly uncached: Float32Array };
}

/** Whether the files are those that were written. Call it before they are read. Throws NOT_AN_ARTIFACT. */
export async function checkFiles(folder: string): Promise<Check> {
  const damages = await damagesOf(folder);
  return check("files have the digests of SHA256SUMS", damages.length, 0, damages);
}

/**
 * Runs the artifact, the plan-aware loop and the uncached loop on the same noise: three runs a sample, and up to `TRIES` more of the worst
 * sample if that is beyond the limit. Runs artifact and loop at other guidance scales, too, where the artifact takes the scale
 * (`otherScales`), at another batch where it takes any, and the first step by the exporter's file. Throws NO_KERNELS.
 */
export async function verify(artifact: Artifact, options: VerifyOptions = {}): Promise<Verification> {
  const { job, plan, folder } = artifact;
  const { samples = 1 } = options;
  const files = options.files ?? (await checkFiles(folder));
  assertKernels(job.run, options.device);
  const session = await ArtifactSession.open(join(folder, FILES.model), options);
  const loop = new ReferenceLoop(job.run, options);
  const companions = new Sessions({ ...options, ...AS_WRITTEN }, 0);
  const latentPort = runPorts(job.run).latent;
  const { pixels, display } = job.source.recipe;
  const range = pixels ? PIXEL_RANGE : display?.range;
  const fromUncached: number[] = [];
  const peaks: number[] = [];
  const overflown = new Set<string>();
  const tolerance = toleranceOf([job.run.precision, ...branchTypes(job)]);
  const compared = new Map<string, Compared[]>();
  const same: Check[] = [];
  const scaled: Check[] = [];
  const inParts: number[] = [];
  const { segments } = artifact.manifest;
  let shown: Verification["shown"] | undefined;
  let first: RunInputs | undefined;
  let resized: readonly Check[];
  const follow = async (inputs: RunInputs): Promise<Tensors> => outputsAt(job, await loop.run(inputs, { plan }), inputs, companions);
  try {
    for (let sample = 0; sample < samples; sample++) {
      const inputs = await startOf(job, sample, options);
      const given = await session.outputs(feedsOf(job, inputs));
      if (segments.length > 0 && !first)
        for (const [name, data] of await runSegments(folder, artifact.manifest, feedsOf(job, inputs), options))
          inParts.push(relativeL2(floatsOf(data), floatsOf(required(given.get(name)))));
      first ??= inputs;
      options.progress?.("verify", 3 * sample + 1, 3 * samples);
      const followed = await loop.run(inputs, { plan });
      options.progress?.("verify", 3 * sample + 2, 3 * samples);
      const uncached = await loop.run(inputs);
      options.progress?.("verify", 3 * sample + 3, 3 * samples);
      const plain = await outputsAt(job, uncached, inputs, companions);
      const results = { "the artifact": [...given.values()].map(floatsOf), "the loop": [followed], "the uncached loop": [uncached] };
      for (const [whose, all] of Object.entries(results)) if (!all.every((one) => one.every(Number.isFinite))) overflown.add(whose);
      let pair: Verification["shown"] | undefined;
      for (const [name, data] of await outputsAt(job, followed, inputs, companions)) {
        const result = required(given.get(name));
        const [cached, expected] = [floatsOf(result), floatsOf(data)];
        compared.set(name, [...(compared.get(name) ?? []), { inputs, followed: expected, relL2: distance(result, data) }]);
        pair = { shape: data.shape, cached, uncached: alike(result, required(plain.get(name))) };
      }
      const last = required(pair);
      fromUncached.push(relativeL2(last.cached, last.uncached));
      peaks.push(psnr(last.cached, last.uncached, range ? range[1] - range[0] : rangeOf(last.uncached)));
      shown ??= last;
    }
    for (const [name, all] of compared) {
      const what = name === latentPort ? "artifact = plan-aware loop over the original step" : `${name} = the networks behind the loop`;
      same.push(await comparison(what, all, tolerance, async (inputs) => floatsOf(required((await follow(inputs)).get(name)))));
    }
    scaled.push(...(await scaleChecks(job, required(first), tolerance, { session, follow })));
    resized = await batchChecks(artifact, required(first), tolerance, { session, companions }, options);
  } finally {
    await session.close();
    await loop.close();
    await companions.close();
  }
  const problem = overflown.size > 0 ? `not finite: the result of ${[...overflown].join(", ")}` : undefined;
  const widened = widenedNote(job);
  const checks = [
    files,
    ...cutChecks(job),
    ...same.map((one, i) => {
      const notes = [one.note, i === 0 ? widened : undefined].filter((note) => note !== undefined);
      return { ...one, ...(i === 0 && problem !== undefined && { problem }), ...(notes.length > 0 && { note: notes.join("; ") }) };
    }),
    ...(inParts.length > 0 ? [check(`${segments.length} segments in turn = the whole run`, Math.max(...inParts), 0, [])] : []),
    ...scaled,
    ...resized,
    ...(await sameSteps(job, required(first), options)),
  ];
  const fidelity = { relL2: mean(fromUncached), psnr: mean(peaks), samples: samples * job.run.batch };
  return { ok: checks.every(({ ok }) => ok), checks, fidelity, shown: required(shown) };
}

/** What an artifact of a job gives, in its order, if the loop ends at this latent. */
async function outputsAt(job: Job, latent: Float32Array, { conditions }: RunInputs, companions: Sessions): Promise<Tensors> {
  const made = await decoded(job, latent, conditions, companions);
  const { keepLatent } = job.source.recipe;
  const kept = keepLatent ? [[runPorts(job.run).latent, tensorFrom("float", latentShape(job.run), latent)] as const] : [];
  return new Map([...kept, ...made]);
}

/** How far a result is from what it should be: relative L2, and of pixels, which the loop does not round, what rounding does not explain. */
function distance(given: TensorData, expected: TensorData): number {
  return (isPixels(given, expected) ? pixelDistance : relativeL2)(floatsOf(given), floatsOf(expected));
}

/** Values of the loop as a result has them: rounded, a half to the even neighbour, where these are pixels. */
function alike(result: TensorData, values: TensorData): Float32Array {
  return isPixels(result, values) ? Float32Array.from(Uint8ClampedArray.from(tensorNumbers(values))) : floatsOf(values);
}

function isPixels(given: TensorData, expected: TensorData): boolean {
  return !isFloatType(given.elem) && isFloatType(expected.elem);
}

function firstOf(outputs: Tensors): TensorData {
  return required([...outputs.values()][0]);
}

function floatsOf(data: TensorData): Float32Array {
  return Float32Array.from(tensorNumbers(data));
}

function required<T>(value: T | undefined): T {
  if (value === undefined) throw new Error("internal: a result is missing");
  return value;
}

/** Whether an artifact that takes the guidance scale follows it: on the inputs of one run, at two other scales. */
async function scaleChecks(
  job: Job,
  given: RunInputs,
  tolerance: Tolerance,
  { session, follow }: { readonly session: ArtifactSession; readonly follow: (inputs: RunInputs) => Promise<Tensors> },
): Promise<readonly Check[]> {
  const input = scaleInput(job.run);
  if (!input) return [];
  const scales = otherScales(job.run.guidance);
  const resultOf = async (inputs: RunInputs): Promise<TensorData> => firstOf(await follow(inputs));
  const compared: Compared[] = [];
  for (const scale of scales) {
    const inputs = { ...given, conditions: new Map([...given.conditions, [input.name, tensorOf("float", [], [scale])]]) };
    const expected = await resultOf(inputs);
    const relL2 = distance(firstOf(await session.outputs(feedsOf(job, inputs))), expected);
    compared.push({ inputs, followed: floatsOf(expected), relL2 });
  }
  return [
    await comparison(`artifact = plan-aware loop at ${input.name} ${scales.join(" and ")}`, compared, tolerance, async (inputs) =>
      floatsOf(await resultOf(inputs)),
    ),
  ];
}

/**
 * Two scales beside that of the build: 1, where the unconditional half must come out as nothing, and half as much again as the build's,
 * rounded up, as inputs for embedded scales may be of whole numbers. Where these are the build's own, others. As all weights are affine in
 * the scale, an artifact that is right at three scales is right at all of them, but for what a network makes of an embedded one.
 */
function otherScales({ scale }: Guidance): readonly number[] {
  const given = [scale].flat();
  const [first = 1] = given;
  return [...new Set([1, Math.ceil(1.5 * first), 2, 3])].filter((other) => !given.includes(other)).slice(0, 2);
}

/**
 * Whether an artifact of any batch follows its plan at another one as well: at 1, where sizes of 1 could be mistaken, or at 3 where it was
 * built for 1. Noise is drawn for that batch; its conditions are those of the given run, in turn.
 */
async function batchChecks(
  artifact: Artifact,
  given: RunInputs,
  tolerance: Tolerance,
  { session, companions }: { readonly session: ArtifactSession; readonly companions: Sessions },
  options: VerifyOptions,
): Promise<readonly Check[]> {
  const { run } = artifact.job;
  if (!run.anyBatch) return [];
  const batch = run.batch === 1 ? 3 : 1;
  const job = await jobAtBatch(artifact, batch, options);
  const loop = new ReferenceLoop(job.run, options);
  try {
    const plan = planFor(job, artifact.schedule);
    const conditions = await encoded(job, inTurn(job.run, given.conditions), companions);
    const inputs = { ...drawnFor(job.run, 1, { seed: options.seed }), conditions };
    const follow = async (inputs: RunInputs): Promise<TensorData> =>
      firstOf(await outputsAt(job, await loop.run(inputs, { plan }), inputs, companions));
    const expected = await follow(inputs);
    const relL2 = distance(firstOf(await session.outputs(feedsOf(job, inputs))), expected);
    const compared = [{ inputs, followed: floatsOf(expected), relL2 }];
    const name = `artifact = plan-aware loop at a batch of ${batch}`;
    return [await comparison(name, compared, tolerance, async (inputs) => floatsOf(await follow(inputs)))];
  } finally {
    await loop.close();
  }
}

/** Conditions for a run of another batch: where it has more rows, or fewer, those of each latent in turn. */
function inTurn(run: Run, conditions: RunInputs["conditions"]): RunInputs["conditions"] {
  const shapes = new Map(
    [...givenConditions(run).values()].flatMap((condition) =>
      (["cond", "uncond"] as const).flatMap((half) => {
        const source = condition.halves[half];
        const shape = staticShape(typeFor(condition, half)) ?? [];
        return source.kind === "input" ? [[source.name, source.perStep ? [source.perStep.length, ...shape] : shape] as const] : [];
      }),
    ),
  );
  return new Map(
    Array.from(conditions, ([name, data]) => {
      const wanted = shapes.get(name) ?? data.shape;
      const axis = wanted.findIndex((size, i) => size !== data.shape[i]);
      return [name, axis < 0 ? data : rowsInTurn(data, axis, entryAt(wanted, axis))];
    }),
  );
}

/** So many elements along an axis: those that there are, in turn. */
function rowsInTurn(data: TensorData, axis: number, count: number): TensorData {
  const { elem, shape } = data;
  const have = entryAt(shape, axis);
  const bytes = readTensor(data);
  const outer = elementCount(shape.slice(0, axis));
  const size = bytes.length / outer / have;
  const parts = Array.from({ length: outer * count }, (_, i) => {
    const row = Math.floor(i / count) * have + ((i % count) % have);
    return bytes.subarray(row * size, (row + 1) * size);
  });
  const made = { kind: "bytes", bytes: Uint8Array.from(Buffer.concat(parts)) } as const;
  return { elem, shape: shape.map((old, i) => (i === axis ? count : old)), content: made };
}

/** Whether cuts around blocks hold what they should; no check where there are none. */
function cutChecks({ run }: Job): readonly Check[] {
  const networks = [...run.networks.values()];
  if (!networks.some(({ dit }) => dit?.branches.some(({ kind }) => kind === "block"))) return [];
  const stray = [...new Set(networks.flatMap(strayCuts))];
  const problems = stray.map((site) => `'${site}' is not what blocks add to one stream`);
  return [check("cuts hold what blocks add to one stream", stray.length, 0, problems)];
}

/** The check of each network that the run calls. */
async function sameSteps(job: Job, inputs: RunInputs, options: RuntimeOptions): Promise<readonly Check[]> {
  const { rows, borders } = job.run;
  const checks: Check[] = [];
  for (const [place, network] of allNetworks(job.network).entries()) {
    const row = rows.findIndex((_, k) => placeAt(borders, k) === place);
    const of = place === 0 ? "" : ` of network ${place + 1}`;
    if (row >= 0) checks.push(await sameStep(`lifted step${of} = exported step`, job, { network, row }, inputs, options));
  }
  return checks;
}

/** Whether the step that the loop runs predicts what the exporter's file does: the loop knows only what binding and lifting made of it. */
async function sameStep(name: string, job: Job, first: FirstCall, inputs: RunInputs, options: RuntimeOptions): Promise<Check> {
  const lifted = liftedFirstStep(job, first, options);
  const exported = exportedFirstStep(job, first, runnable(first.network.read, job.run.precision), options);
  const followed = await lifted(inputs);
  const compared = [{ inputs, followed, relL2: relativeL2(await exported(inputs), followed) }];
  return comparison(name, compared, toleranceOf(branchTypes(job)), lifted);
}

/** What the loop, or its step, gave in one sample, and how far what it was compared with is from that. */
interface Compared {
  readonly inputs: RunInputs;
  readonly followed: ArrayLike<number>;
  readonly relL2: number;
}

/**
 * The check of the largest distance. Where that is beyond the limit, the limit follows from how far `run` moves at most when the noise
 * changes; this is tried until it explains the distance.
 */
async function comparison(
  name: string,
  compared: readonly Compared[],
  { limit, nudge }: Tolerance,
  run: (inputs: RunInputs) => Promise<ArrayLike<number>>,
): Promise<Check> {
  const relL2 = Math.max(...compared.map((one) => one.relL2));
  const worst = compared.find((one) => one.relL2 === relL2);
  if (!worst || relL2 <= limit) return check(name, relL2, limit, []);
  let sensitivity = 0;
  for (let n = 1; n <= TRIES && relL2 > MARGIN * sensitivity; n++) {
    const noise = worst.inputs.noise.map((value, i) => value * (1 + (Math.cos(n * (i + 1)) < 0 ? -nudge : nudge)));
    sensitivity = Math.max(sensitivity, relativeL2(await run({ ...worst.inputs, noise }), worst.followed));
  }
  const measured = Math.max(limit, Math.min(MARGIN * sensitivity, TOLERANCES.bfloat16.limit));
  const note = `a change of the noise by ${nudge.toExponential()} moves the loop's own result by ${sensitivity.toExponential(1)}`;
  return { ...check(name, relL2, measured, []), sensitivity, note };
}

function widenedNote({ network, run }: Job): string | undefined {
  return isWidened(network.read, run.precision)
    ? "the original step is of bfloat16, and the loop runs it with floats in place of that"
    : undefined;
}

/** The types that the exporter's step computes in. */
function branchTypes({ model }: Job): readonly (ElementType | undefined)[] {
  return model.graph.marks.map(({ value }) => value.type?.elem);
}

function toleranceOf(types: readonly (ElementType | undefined)[]): Tolerance {
  const all = types.filter(isFloatType).map((type) => TOLERANCES[type]);
  return all.reduce((widest, tolerance) => (tolerance.limit > widest.limit ? tolerance : widest), TOLERANCES.float);
}

function check(name: string, relL2: number, limit: number, problems: readonly string[]): Check {
  // A result that is not a number is not within any limit.
  return { name, relL2, limit, ok: relL2 <= limit, ...(problems.length > 0 && { problem: problems.join("; ") }) };
}
