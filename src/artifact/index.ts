/** Artifacts: written, opened, verified, timed, packaged. */
export {
  type Artifact,
  type ArtifactContents,
  type ArtifactOptions,
  ArtifactSession,
  type OnSegment,
  runSegments,
  feedsOf,
  jobAtBatch,
  fillArtifact,
  leftOnDisk,
  openArtifact,
  sizesOf,
  storeEmitted,
  storeOthers,
  writeArtifact,
} from "./artifact.js";
export { bench, type Bench, type BenchOptions, type Timing } from "./bench.js";
export { ARTIFACT, FILES, type Manifest, readManifest, sizeAt } from "./manifest.js";
export { MODEL_NAME, modelNameOf, type Packaged, packageModel, type PackageOptions } from "./triton.js";
export { type Check, checkFiles, type Verification, verify, type VerifyOptions } from "./verify.js";
export { artifactOf, dataBytes, type Member, membersOf } from "./variants.js";
export { ARTIFACTS, variantsIn, writeVariants } from "./variants-file.js";
