/**
 * DDIM under the name by which ParaDiGMS (arXiv 2305.16317) solves it in parallel, diffusers' `schedulers/scheduling_ddim_parallel.py`;
 * step by step they are one.
 */
import type { Sampler } from "../sampler.js";
import ddim from "./ddim.js";

export default { ...ddim, name: "ddim-parallel", className: "DDIMParallelScheduler" } satisfies Sampler<typeof ddim.config>;
