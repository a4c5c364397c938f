/**
 * Constant folding of what is small: sizes, flags, tables of positions. That is what shapes follow from. Weights stay as they are, and on
 * disk, until `fold` simplifies the step.
 */
import { foldedWithin } from "./fold.js";
import type { Pass, Questions } from "./pass.js";

export default {
  name: "fold-small",
  summary: "turn small values that depend on no input into data",
  preserves: "rounding",
  run: (model, context) => foldedWithin(model, context, 0),
} satisfies Pass<Questions>;
