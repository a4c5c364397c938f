// A recogniser in one file: what there is to cache is attention alone; feed-forward networks are computed at every step.
// Recognisers of your own are asked before the known ones; the first that answers with branches is taken.
//
//   smoothcc inspect MODEL --extension ./examples/attention-alone.js
import { placed } from "smoothcc/ir";

/** @type {import("smoothcc/ir").Recogniser} */
export default {
  name: "attention-alone",
  recognise({ streams: { branches }, nameOf }) {
    return placed(branches, ({ tokens }) => nameOf(tokens)).filter(({ branch }) => branch.kind !== "mlp");
  },
};
