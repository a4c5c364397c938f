/** The schema of the cut of the network in recipes and plans. */
import { z } from "zod";
import { CUT_WORDS, parseCut } from "../ir/residual/cut.js";

/** A cut in words (`parseCut`). */
export const cutSchema = z.string().refine((text) => parseCut(text) !== undefined, { error: `takes ${CUT_WORDS}` });
