/** The version of this program, as package.json has it. */
import { createRequire } from "node:module";
import { z } from "zod";

// The compiled file lies one folder deeper than the source.
const require = createRequire(import.meta.url);

export const VERSION = z.object({ version: z.string() }).parse(require("smoothcc/package.json")).version;

/** The keys of an emitted model's metadata begin with it. */
export const METADATA_PREFIX = "smoothcc.";
