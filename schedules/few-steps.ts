/** A warning for short runs, where there is little to reuse. */

/** Below this many steps neighbouring steps differ so much that reuse rarely pays. */
const FEW_STEPS = 10;

/** A sentence for the user if the run is short. */
export function fewSteps(steps: number): readonly string[] {
  return steps < FEW_STEPS ? [`A run of ${steps} steps leaves little to reuse: neighbouring steps differ much in short runs.`] : [];
}
