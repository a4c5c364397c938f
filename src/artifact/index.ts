/** Artifacts: written, opened, verified, timed, packaged. */
export { type Artifact, ArtifactSession, feedsOf, fillArtifact, openArtifact, shareWeights, sizesOf, writeArtifact } from "./artifact.js";
export { bench, type Bench, type Timing } from "./bench.js";
export { ARTIFACT, FILES, type Manifest, readManifest } from "./manifest.js";
export { MODEL_NAME, type Packaged, packageModel } from "./triton.js";
export { type Check, checkFiles, type Verification, verify } from "./verify.js";
