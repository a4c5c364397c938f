/** Where recipes and plans say that the network is cut. */
import { z } from "zod";
import { CUT_WORDS, parseCut } from "../ir/residual/cut.js";

/** A cut in words (`parseCut`). */
export const cutSchema = z.string().refine((text) => parseCut(text) !== undefined, { error: `takes ${CUT_WORDS}` });
