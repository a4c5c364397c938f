/** The oracle: what a sampling run has to come to, step by step. */
export {
  type BranchValues,
  type Cells,
  finalOf,
  nextOf,
  type Observer,
  ReferenceLoop,
  type RunUnderWay,
  type StepResult,
  type Trajectory,
} from "./loop.js";
export { startOf } from "./start.js";
