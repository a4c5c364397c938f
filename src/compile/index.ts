/** From a job and a plan to the emitted model, and what it will take. */
export { assertLimitable, limitCache, type Limited } from "./cache-limit.js";
export { type Compiled, compileModel, type CompileOptions } from "./compile.js";
export type { OffDevice } from "./cuda-coverage.js";
