/** The order of the passes, stage by stage, and the reasons for it. */
import bind from "./bind.js";
import cse from "./cse.js";
import dce from "./dce.js";
import freezeInputs from "./freeze-inputs.js";
import fold from "./fold.js";
import foldSmall from "./fold-small.js";
import fuse from "./fuse.js";
import decide from "./decide.js";
import decomposeForCuda from "./decompose-for-cuda.js";
import dropCasts from "./drop-casts.js";
import loop from "./loop.js";
import merge from "./merge.js";
import precision from "./precision.js";
import reuse from "./reuse.js";
import sliceTokens from "./slice-tokens.js";
import decomposeContribOps from "./decompose-contrib-ops.js";
import join from "./join.js";
import inferTypes, { deriveTypes } from "./infer-types.js";
import spellSums from "./spell-sums.js";
import unpackSequences from "./unpack-sequences.js";
import unroll from "./unroll.js";
import widen from "./widen.js";
import type { BindContext, Pass, PlanContext, Questions } from "./pass.js";

/**
 * The bind stage fixes all shapes, which everything else needs, lifting included:
 *   widen  makes floats of bfloat16 if another type is asked for, as the original may run nowhere, and else at the ports;
 *   bind   gives every input a fixed shape;
 *   then the passes of `SETTLE_PASSES`, until they find nothing more.
 */
export const BIND_PASSES: readonly Pass<BindContext>[] = [widen, bind];

/**
 * What follows from the shapes of the inputs. Each of these may give the others work, so they are repeated (`untilSettled`):
 *   infer-types  gives every value its type, by rules and by asking the runtime;
 *   drop-casts   removes casts to the type that is there, which the runtime cannot always load;
 *   unpack-sequences  makes slices of sequences that are taken apart again, of which nobody else knows what they hold;
 *   decompose-contrib-ops  replaces the runtime's own operators, which no other pass and no other runtime knows;
 *   spell-sums  makes additions of two values of all sums, as lifting knows no others;
 *   fold-small  computes what is small and depends on no input: Constant nodes, shape arithmetic, position tables;
 *   decide    takes the side of an If that is known by now.
 */
export const SETTLE_PASSES: readonly Pass<Questions>[] = [
  inferTypes,
  dropCasts,
  unpackSequences,
  decomposeContribOps,
  spellSums,
  foldSmall,
  decide,
];

/** The same with types by rules alone. They come first, as the runtime only answers for a graph of which it has a kernel for every node. */
export const DERIVE_PASSES: readonly Pass<Questions>[] = SETTLE_PASSES.map((pass) => (pass === inferTypes ? deriveTypes : pass));

/**
 * The step stage simplifies the single step, before it is copied:
 *   freeze-inputs  makes constants of the inputs that are known at compile time;
 *   fold      computes what depends on these, and what is larger;
 *   decompose-for-cuda  replaces operators that CUDA would leave to the CPU;
 *   cse       shares what the exporter wrote twice;
 *   fuse      replaces spelled-out expressions by one operator, after folding and sharing have simplified them;
 *   decompose-for-cuda  again, as fusing may raise the version of the operator set to one for which CUDA lacks a kernel;
 *   dce       removes what nothing reads any more;
 *   precision converts to the requested float type, after norms and attention have become one operator each.
 */
export const STEP_PASSES: readonly Pass[] = [freezeInputs, fold, decomposeForCuda, cse, fuse, decomposeForCuda, dce, precision];

/** The same for networks in front of the run and behind it, which keep their types. */
export const COMPANION_PASSES: readonly Pass[] = [fold, decomposeForCuda, cse, fuse, decomposeForCuda, dce];

/** What follows when a network becomes one of a newer version of the operator set, in which CUDA may lack a kernel. */
export const RAISED_PASSES: readonly Pass[] = [decomposeForCuda];

/**
 * The run stage makes the whole sampling run, which still computes every branch at every step:
 *   unroll  copies the part that depends on the latent for each row of the sampler; the rest is hoisted in front of the first step;
 *   join    puts the networks around it that are called once a run;
 *   dce     removes hoisted nodes that no step reads, before they are folded;
 *   fold    computes the time embedding and what depends on it alone, as the timesteps are constants now;
 *   cse     shares constants between steps; dce then removes what folding and sharing left behind.
 * Up to here the result is exact: this is the uncached artifact.
 */
export const RUN_PASSES: readonly Pass[] = [unroll, join, dce, fold, cse, dce];

/**
 * The cache stage follows the plan:
 *   reuse   makes cached branches read earlier values; this is the only pass that changes the result;
 *   dce     removes what only a cached branch needed: attention, norms, their modulation;
 *   slice-tokens  computes tokens alone that cells are computed for;
 *   merge   joins the gated sums of neighbouring cached branches into one, added up where the branches are computed;
 *   cse     shares a sum between steps that read the same values without gates.
 */
export const CACHE_PASSES: readonly Pass<PlanContext>[] = [reuse, dce, sliceTokens, merge, cse];

/**
 * The loop form has these passes in place of the run and cache stages:
 *   loop   makes the step the body of a loop, controlled row by row by the plan and the sampler's table;
 *   the others do as in the run stage, on the nodes in front of the loop: no pass looks into the body.
 */
export const LOOP_PASSES: readonly Pass<PlanContext>[] = [loop, join, dce, fold, cse, dce];
