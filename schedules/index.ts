/** Decisions as data, and the only door to them: samplers as tables, plans, policies. */
export { adjustmentArrays, type Adjustment, type Adjustments } from "./adjustment.js";
export * from "./fidelity.js";
export { fewSteps } from "./few-steps.js";
export * from "./forecast.js";
export type { Format } from "./format.js";
export * from "./formats/index.js";
export * from "./guidance.js";
export * from "./interval.js";
export { cutSchema } from "./cut.js";
export { parseWith } from "./parse.js";
export * from "./plan.js";
export * from "./policies/index.js";
export * from "./policy.js";
export * from "./sampler.js";
export { isSampler, samplers, samplerTable, unknownKeys } from "./samplers/index.js";
export { linspace } from "./spacing.js";
export * from "./statistics.js";
export * from "./time-shift.js";
