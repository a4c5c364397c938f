/** No reuse at all: what every other policy is compared with. */
import { z } from "zod";
import type { Policy } from "../policy.js";

const options = z.object({});

export default {
  name: "full",
  summary: "compute every branch at every step",
  needsTrace: false,
  options,
  choose({ steps, groups }) {
    return { cells: new Map([...groups.keys()].map((key) => [key, Array.from({ length: steps }, () => 1 as const)])) };
  },
} satisfies Policy<typeof options>;
