/** smoothcc as a library: the commands' work as functions. The parts are `smoothcc/ir`, `smoothcc/passes`, `smoothcc/schedules`. */
export { CompilerError } from "../ir/diagnostics.js";
export { ArtifactSession, feedsOf, openArtifact, readManifest, writeArtifact, type Artifact, type Manifest } from "./artifact.js";
export { bench, type Bench } from "./bench.js";
export { build, type BuildOptions, type Built } from "./build.js";
export { calibrate, type CalibrateOptions, type Shard } from "./calibrate.js";
export { compileModel as compile, type Compiled } from "./compile.js";
export { dumpBranches, inspect, type Inspection } from "./inspect.js";
export { conditionsOf, latentShape, openJob, openLifted, type Job } from "./job.js";
export { npyBytes, readNpy } from "./npy.js";
export { readPlan, writePlan } from "./plan-file.js";
export { choosePlan as plan, planningOf, type Planned } from "./plan.js";
export { recipeSchema, type Recipe } from "./recipe.js";
export { ReferenceLoop } from "./reference.js";
export { renderReport, type ReportData } from "./report/index.js";
export { sampleInputs, type RunInputs } from "./run-inputs.js";
export { Session, evaluator } from "./runtime.js";
export { assertSameRun, mergeTraces, readTrace, type Trace } from "./trace.js";
export { verify, type Verification } from "./verify.js";
