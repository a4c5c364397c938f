/** What diffusers' hooks decided, as test/fixtures/policies/record.py recorded it. */
import { z } from "zod";
import { readJson } from "../../src/files/json.js";
import { fileURLToPath } from "node:url";

const pair = z.tuple([z.number(), z.number()]);

const schema = z.object({
  magcache: z.array(
    z.object({
      ratios: z.array(z.number()),
      steps: z.int(),
      delta: z.number(),
      k: z.int(),
      retention: z.number(),
      row: z.string(),
    }),
  ),
  pab: z.array(
    z.object({
      spatial: z.int(),
      temporal: z.int(),
      cross: z.int(),
      window: pair,
      times: z.array(z.number()),
      rows: z.object({ spatial: z.string(), temporal: z.string(), cross: z.string() }),
    }),
  ),
});

export const recorded = schema.parse(readJson(fileURLToPath(new URL("../fixtures/policies/recorded.json", import.meta.url))));
