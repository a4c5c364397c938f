/** Jobs: a model, its recipe, and the sampling run that they define. */
export { bindModel, type BoundModel } from "./bound-model.js";
export type { OpenCompanion } from "./companions.js";
export { conditionsOf, fitsAnyBatch } from "./conditions.js";
export { type Extensions, loadExtensions } from "./extensions.js";
export { bordersOf, cutFor, guidedStep, type Job, jobOf, openJob, planFor, warningsOf, withBatch } from "./job.js";
export { allNetworks, lifted, type Network, openNetwork } from "./network.js";
export { perStepCandidates } from "./per-step-candidates.js";
export { readPlan, writePlan } from "./plan-file.js";
export { type InputSpecs, PIXELS, PRECISIONS, type Recipe, recipeSchema, RUN_TIME, sizeSchema, type ValueSpec } from "./recipe.js";
export { DEFAULT_SEED, drawnFor, type RunInputs, sampleInputs, type SampleOptions } from "./run-inputs.js";
export { schedulerConfig } from "./sampling.js";
export { fileOf, openJobSource, type RecipeOverrides } from "./source.js";
export { isVariantName, type Variant, variantsOf } from "./variants.js";
