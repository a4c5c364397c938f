/** The oracle: executes a sampling run step by step, to check artifacts against it. */
export { decoded, encoded } from "./companions.js";
export { exportedFirstStep, type FirstCall, liftedFirstStep } from "./first-step.js";
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
export { pixelDistance } from "./pixels.js";
export { maskAt } from "./inpainting.js";
export { strayCuts } from "./cuts.js";
export { startOf } from "./start.js";
