/** smoothcc as a library: the commands' work as functions. The parts are `smoothcc/ir`, `smoothcc/passes`, `smoothcc/schedules`. */
export { CompilerError } from "../ir/diagnostics.js";
export { latentShape, psnr, rangeOf, relativeL2 } from "../schedules/index.js";
export {
  ArtifactSession,
  feedsOf,
  readManifest,
  runSegments,
  writeArtifact,
  type Artifact,
  type Bench,
  type Manifest,
  type Packaged,
  type BenchOptions,
  type PackageOptions,
  type Verification,
  type VerifyOptions,
} from "./artifact/index.js";
export { type BuildOptions, type Built, type BuiltSet, type SetOptions } from "./build.js";
export { assertSameRun, mergeTraces, readTrace, type CalibrateOptions, type Shard, type Trace } from "./calibration/index.js";
export { bench, build, buildSet, calibrate, compile, openArtifact, openJob, packageModel, verify } from "./checked.js";
export { type Compiled } from "./compile/index.js";
export { npyBytes, readNpy } from "./files/index.js";
export { dumpBranches, inspect, type Inspection } from "./inspect.js";
export {
  conditionsOf,
  cutFor,
  loadExtensions,
  openNetwork,
  planFor,
  readPlan,
  recipeSchema,
  sampleInputs,
  writePlan,
  type Extensions,
  type Job,
  type Recipe,
  type RunInputs,
} from "./job/index.js";
export {
  choosePlan as plan,
  front,
  planningForJob,
  planningFromTrace,
  runsOf,
  type FrontPoint,
  type ModelRuns,
  type Planned,
} from "./planning/index.js";
export { ReferenceLoop } from "./reference/index.js";
export { renderReport, type ReportData } from "./report/index.js";
export { Session, evaluator } from "./runtime/index.js";
