/** smoothcc as a library: the commands' work as functions. The parts are `smoothcc/ir`, `smoothcc/passes`, `smoothcc/schedules`. */
export { CompilerError } from "../ir/diagnostics.js";
export { latentShape, psnr, rangeOf, relativeL2 } from "../schedules/index.js";
export {
  ArtifactSession,
  bench,
  feedsOf,
  openArtifact,
  packageModel,
  readManifest,
  verify,
  writeArtifact,
  type Artifact,
  type Bench,
  type Manifest,
  type Packaged,
  type Verification,
} from "./artifact/index.js";
export { build, buildTiers, type BuildOptions, type Built } from "./build.js";
export { assertSameRun, calibrate, mergeTraces, readTrace, type CalibrateOptions, type Shard, type Trace } from "./calibration/index.js";
export { compileModel as compile, type Compiled } from "./compile/index.js";
export { npyBytes, readNpy } from "./files/index.js";
export { dumpBranches, inspect, type Inspection } from "./inspect.js";
export {
  conditionsOf,
  cutFor,
  loadExtensions,
  openJob,
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
