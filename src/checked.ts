/** The library's functions that take options: they check them before anything is done, as the command line does with its own. */
import { z } from "zod";
import { unknownName } from "../ir/diagnostics.js";
import { badOption } from "../schedules/diagnostics.js";
import * as artifacts from "./artifact/index.js";
import * as builds from "./build.js";
import * as calibration from "./calibration/index.js";
import { compileModel, type CompileOptions } from "./compile/index.js";
import * as jobs from "./job/index.js";
import type { RuntimeOptions } from "./runtime/index.js";

/** A schema for every option of an interface, and for nothing else. */
type Schemas<Options> = { readonly [Key in keyof Required<Options>]: z.ZodType };

const count = z.int("is a whole number from 0 up").min(0, "is a whole number from 0 up");
const some = z.int("is a whole number from 1 up").min(1, "is a whole number from 1 up");
const text = z.string("is a text").min(1, "is not empty");
const flag = z.boolean("is true or false");
const texts = z.array(text, "is a list of texts").readonly();
const called = z.custom((given) => typeof given === "function", "is a function");
const object = z.custom((given) => typeof given === "object" && given !== null, "is an object");
const map = z.instanceof(Map, { error: "is a Map" });

const RUNTIME: Schemas<RuntimeOptions> = { device: text, threads: some, signal: z.instanceof(AbortSignal, { error: "is an AbortSignal" }) };
const SAMPLES: Schemas<jobs.SampleOptions> = { seed: count, noise: object, inputs: map };
const OVERRIDES: Schemas<jobs.RecipeOverrides> = {
  ...{ recipe: text, scheduler: text, steps: some, start: count, inpaint: flag, guidance: z.number("is a number"), batch: some, cut: text },
  ...{
    precision: z.enum(jobs.PRECISIONS, `is one of ${jobs.PRECISIONS.join(", ")}`),
    runtime: texts,
    dims: map,
    extensions: texts,
    allowOutside: texts,
    inputs: map,
    stopAt: z.literal("latent", "is 'latent'"),
    pixels: z.enum(jobs.PIXELS, `is one of ${jobs.PIXELS.join(", ")}`),
    latent: flag,
    size: z.array(some, "is a height and a width").length(2, "is a height and a width").readonly(),
  },
};
const COMPILE: Schemas<CompileOptions> = { form: text, without: texts, segments: some };
const CALIBRATE: Schemas<calibration.CalibrateOptions> = {
  ...{
    ...RUNTIME,
    seed: count,
    inputs: map,
    samples: some,
    shard: object,
    memory: z.number("is a number of bytes").positive("is above 0"),
  },
  ...{ found: object, keep: called, checkpoint: called, progress: called },
};
const VERIFY: Schemas<artifacts.VerifyOptions> = { ...RUNTIME, ...SAMPLES, samples: some, files: object, progress: called };
const BENCH: Schemas<artifacts.BenchOptions> = { ...RUNTIME, runs: some, uncached: object, progress: called };
const OPEN: Schemas<artifacts.ArtifactOptions> = { ...RUNTIME, extensions: texts, check: flag };
const PACKAGE: Schemas<artifacts.PackageOptions> = { name: text, device: text, maxBatch: some, force: flag, check: flag };
const BUILD: Schemas<builds.BuildOptions> = {
  ...{ ...RUNTIME, ...SAMPLES, overrides: object, output: text, force: flag, policy: text, policyOptions: object, samples: some },
  ...{ form: text, segments: some, cacheMemory: count, runs: count, progress: called, onCompiled: called, warn: called },
};

const SET: Schemas<builds.SetOptions> = { variants: texts, tiers: texts };

/** The options as they are. Throws UNKNOWN_NAME for one that there is not, BAD_OPTION for one that is missing or is no such thing. */
function checked<Given extends object | undefined>(
  schemas: Schemas<NonNullable<Given>>,
  options: Given,
  required: readonly string[] = [],
): Given {
  const known = new Map<string, z.ZodType>(Object.entries(schemas));
  const given = new Map<string, unknown>(Object.entries(options ?? {}));
  for (const [name, value] of given) {
    const schema = known.get(name);
    if (!schema) throw unknownName("option", name, [...known.keys()]);
    const issue = value === undefined ? undefined : schema.safeParse(value).error?.issues[0];
    if (issue) throw badOption(name, issue.message);
  }
  for (const name of required) if (given.get(name) === undefined) throw badOption(name, "is missing");
  return options;
}

function checkedBuild(options: builds.BuildOptions): builds.BuildOptions {
  const { overrides } = checked(BUILD, options, ["output"]);
  checked(OVERRIDES, overrides);
  return options;
}

export const build: typeof builds.build = async (model, options) => builds.build(model, checkedBuild(options));
export const buildSet: typeof builds.buildSet = async (model, options, set) =>
  builds.buildSet(model, checkedBuild(options), checked(SET, set));
export const openJob: typeof jobs.openJob = async (model, overrides, runtime) =>
  jobs.openJob(model, checked(OVERRIDES, overrides), checked(RUNTIME, runtime));
export const calibrate: typeof calibration.calibrate = async (job, options) => calibration.calibrate(job, checked(CALIBRATE, options));
export const compile: typeof compileModel = async (job, plan, options) => compileModel(job, plan, checked(COMPILE, options));
export const openArtifact: typeof artifacts.openArtifact = async (folder, options) =>
  artifacts.openArtifact(folder, checked(OPEN, options));
export const verify: typeof artifacts.verify = async (artifact, options) => artifacts.verify(artifact, checked(VERIFY, options));
export const bench: typeof artifacts.bench = async (artifact, options) => artifacts.bench(artifact, checked(BENCH, options));
export const packageModel: typeof artifacts.packageModel = async (artifact, repository, options) =>
  artifacts.packageModel(artifact, repository, checked(PACKAGE, options));
