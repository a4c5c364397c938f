/** The passes in their order, stage by stage, and why they stand in it. */
import bind from "./bind.js";
import cse from "./cse.js";
import dce from "./dce.js";
import freezeInputs from "./freeze-inputs.js";
import fold from "./fold.js";
import fuse from "./fuse.js";
import decomposeForCuda from "./decompose-for-cuda.js";
import loop from "./loop.js";
import merge from "./merge.js";
import precision from "./precision.js";
import reuse from "./reuse.js";
import decomposeContribOps from "./decompose-contrib-ops.js";
import inferTypes from "./infer-types.js";
import unroll from "./unroll.js";
import type { BindContext, Pass, PlanContext } from "./pass.js";

/**
 * The bind stage makes shapes known, which all else needs:
 *   bind   gives every input a fixed shape;
 *   infer-types  asks the runtime for the type of every value.
 */
export const BIND_PASSES: readonly Pass<BindContext>[] = [bind, inferTypes];

/**
 * The step stage makes one step as small as it gets, once:
 *   decompose-contrib-ops  spells the runtime's own operators out, which no other pass looks into and no other runtime has;
 *   freeze-inputs  makes constants of the inputs that are known at compile time;
 *   fold      turns what depends on no input into data: Constant nodes, shape arithmetic, position tables;
 *   decompose-for-cuda  spells out what CUDA would leave to the CPU;
 *   cse       shares what the exporter wrote twice;
 *   fuse      writes what exporters spell out as one operator, once there is one of each and what is constant is data;
 *   dce       drops what nobody reads any more;
 *   precision brings it to the float type that was asked for, once norms and attention are one operator each.
 */
export const STEP_PASSES: readonly Pass[] = [decomposeContribOps, freezeInputs, fold, decomposeForCuda, cse, fuse, dce, precision];

/**
 * The run stage makes the whole sampling run of it, still computing every branch at every step:
 *   unroll  one copy of the latent's part per row of the sampler; the rest is hoisted in front of the first step;
 *   dce     what was hoisted and is not read by any step goes before anyone pays for folding it;
 *   fold    with the timesteps known, the time embedding and all that follows from it alone is data;
 *   cse     steps share constants; dce again for what folding and sharing left behind.
 * Up to here the result is exact, and it is the uncached artifact.
 */
export const RUN_PASSES: readonly Pass[] = [unroll, dce, fold, cse, dce];

/**
 * The cache stage follows the plan:
 *   reuse   cached branches read earlier values: the only pass that changes what is computed;
 *   dce     what only a cached branch needed goes: attention, norms, their modulation;
 *   merge   the gated sums of neighbouring cached branches become one, added up where their branches are computed;
 *   cse     steps that read the same values without gates share their sum.
 */
export const CACHE_PASSES: readonly Pass<PlanContext>[] = [reuse, dce, merge, cse];

/**
 * In place of the run and cache stages, for the form that is a loop:
 *   loop   the step becomes the body, which the plan and the sampler's table decide row by row;
 *   the others as in the run stage, on what stands in front of the loop: no pass looks into the body.
 */
export const LOOP_PASSES: readonly Pass<PlanContext>[] = [loop, dce, fold, cse, dce];
