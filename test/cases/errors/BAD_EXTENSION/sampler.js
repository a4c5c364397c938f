import { z } from "zod";

export default {
  name: "mine",
  className: "Mine",
  config: z.object({}),
  takes: [],
  table: () => ({ name: "mine", prediction: "sample", initialScale: 1, rows: [] }),
};
