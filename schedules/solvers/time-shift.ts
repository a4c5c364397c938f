/**
 * The rules by which pipelines choose mu, the logarithm of the time shift, from the number of latent tokens:
 * larger latents get more noise.
 */
import { z } from "zod";

/** `linear`: between two sizes that the scheduler's configuration names; `flux2`: also by the number of steps, as measured for FLUX.2. */
export const shiftRule = z.enum(["linear", "flux2"]);
export type ShiftRule = z.output<typeof shiftRule>;

/** The anchors of the linear rule, with the defaults of diffusers' pipelines. */
const anchors = z.object({
  base_image_seq_len: z.number().default(256),
  max_image_seq_len: z.number().default(4096),
  base_shift: z.number().default(0.5),
  max_shift: z.number().default(1.15),
});

/** mu for a latent of `tokens`, a run of `steps` and a scheduler's configuration. */
export function shiftOf(rule: ShiftRule, tokens: number, steps: number, config: unknown): number {
  switch (rule) {
    case "linear":
      return linearShift(tokens, anchors.parse(config));
    case "flux2":
      return flux2Shift(tokens, steps);
    default:
      throw new Error(`internal: shift rule ${String(rule satisfies never)}`);
  }
}

/** `calculate_shift` of diffusers' `pipelines/flux/pipeline_flux.py`. */
function linearShift(tokens: number, config: z.output<typeof anchors>): number {
  const { base_image_seq_len: fewest, max_image_seq_len: most, base_shift: low, max_shift: high } = config;
  const slope = (high - low) / (most - fewest);
  return tokens * slope + (low - slope * fewest);
}

/** `compute_empirical_mu` of diffusers' `pipelines/flux2/pipeline_flux2.py`: linear in the steps between fits at 10 and at 200 of them. */
function flux2Shift(tokens: number, steps: number): number {
  const atMany = 0.00016927 * tokens + 0.45666666;
  if (tokens > 4300) return atMany;
  const atFew = 8.73809524e-5 * tokens + 1.89833333;
  const slope = (atMany - atFew) / 190;
  return slope * steps + (atMany - 200 * slope);
}
