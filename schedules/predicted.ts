/** What a policy predicts about its plan, and the other plans that it tried. Plan files store it. */
import { z } from "zod";

/** In JSON, a number that is not finite is null. */
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

/** The relative L2 error of the final latent: mean over calibration samples. */
export interface Measured {
  readonly error: number;
  /** Half-width of the 95 % confidence interval; absent for one sample. */
  readonly interval?: number | undefined;
}

/** The error of a plan and the compute that it keeps. */
export interface Tradeoff extends Measured {
  /** The share of the cacheable compute that is still computed. */
  readonly share: number;
}

/** The result of a plan that was tried. */
export interface Compared extends Tradeoff {
  readonly samples: number;
  /** Whether the plan is a published method. */
  readonly isPublished: boolean;
}

/** Policies may add further fields of their own for the user. */
export interface Predicted {
  readonly error?: Measured["error"] | undefined;
  readonly interval?: Measured["interval"];
  readonly computedShare?: Tradeoff["share"] | undefined;
  /** The name of the chosen candidate. */
  readonly candidate?: string | undefined;
  /** All plans that were tried for the same budget, including published methods, by name. */
  readonly compared?: Readonly<Record<string, Compared>> | undefined;
  readonly [what: string]: unknown;
}
