/**
 * DDPM under the name by which ParaDiGMS (arXiv 2305.16317) solves it in parallel, diffusers' `schedulers/scheduling_ddpm_parallel.py`;
 * step by step they are one.
 */
import type { Sampler } from "../sampler.js";
import ddpm from "./ddpm.js";

export default { ...ddpm, name: "ddpm-parallel", className: "DDPMParallelScheduler" } satisfies Sampler<typeof ddpm.config>;
