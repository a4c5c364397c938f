/** No reuse: the baseline for every other policy. */
import { z } from "zod";
import { everywhere, type Policy } from "../policy.js";

const options = z.object({});

export default {
  name: "full",
  summary: "compute every branch at every step",
  needs: [],
  options,
  cachesNothing: true,
  choose({ steps, sites }) {
    return { cells: everywhere(sites, new Array<1>(steps).fill(1)) };
  },
} satisfies Policy<typeof options>;
