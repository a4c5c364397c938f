/** The oracle: what a sampling run has to come to, step by step. */
export { type Cells, finalOf, nextOf, type Outcome, ReferenceLoop, startOf, type Trajectory, type Walk } from "./loop.js";
