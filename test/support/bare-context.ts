/** What passes are told where there is nothing to say. */
import type { PassContext } from "../../passes/pass.js";
import { NO_GUIDANCE } from "../../schedules/index.js";
import { evaluator } from "../../src/runtime/evaluator.js";

/** One row, no guidance, nothing fixed, no plan; constants are computed by one thread. */
export const BARE: PassContext = {
  evaluator: evaluator({ threads: 1 }),
  batch: 1,
  dims: new Map(),
  fixed: new Map(),
  batched: new Set(),
  guidance: NO_GUIDANCE,
  uncond: new Map(),
  prediction: { channelAxis: 1, sign: 1 },
};
