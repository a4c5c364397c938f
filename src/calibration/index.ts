/** Measuring how much branches change from step to step. */
export { calibrate, DEFAULT_SAMPLES, type CalibrateOptions, type Shard, tracedRun } from "./calibrate.js";
export { assertSameRun, mergeTraces, readTrace, runTraced, type Trace } from "./trace.js";
export { windowOf } from "./window.js";
