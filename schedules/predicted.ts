/** What a policy expects of its plan, and what it found on its way, as a plan carries it. */
import { z } from "zod";

/** JSON has null for numbers that are not finite. */
const measured = {
  error: z.number().nullable().transform((error) => error ?? NaN), // prettier-ignore
  interval: z.number().nullish().transform((interval) => interval ?? undefined), // prettier-ignore
};

const comparedSchema = z.object({ ...measured, share: z.number(), samples: z.number(), isPublished: z.boolean() });

export const predictedSchema = z.looseObject({
  computedShare: z.number().optional(),
  error: measured.error.optional(),
  interval: measured.interval,
  candidate: z.string().optional(),
  compared: z.record(z.string(), comparedSchema).optional(),
});

/** The relative L2 error of the final latent, mean over samples of the calibration. */
export interface Measured {
  readonly error: number;
  /** Half-width of its 95 % confidence interval; none for one sample. */
  readonly interval?: number | undefined;
}

/** A plan's error, and what it keeps for it. */
export interface Tradeoff extends Measured {
  /** Of the cacheable compute, that is left. */
  readonly share: number;
}

/** A plan that was tried. */
export interface Compared extends Tradeoff {
  readonly samples: number;
  /** Whether the literature has it. */
  readonly isPublished: boolean;
}

/** Policies say what else a person may want to know under names of their own. */
export interface Predicted {
  readonly error?: Measured["error"] | undefined;
  readonly interval?: Measured["interval"];
  readonly computedShare?: Tradeoff["share"] | undefined;
  /** What the plan was before it was chosen. */
  readonly candidate?: string | undefined;
  /** All that was tried for the same budget, published methods among it, by name. */
  readonly compared?: Readonly<Record<string, Compared>> | undefined;
  readonly [what: string]: unknown;
}
