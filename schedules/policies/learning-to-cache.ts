/** Learning-to-Cache (arXiv 2406.01733): routers that its authors trained decide which branches are reused at every other evaluation. */
import { z } from "zod";
import { badRouter } from "../diagnostics.js";
import { type TensorData, tensorNumbers } from "../../ir/tensor.js";
import type { Policy, PolicySite } from "../policy.js";

const options = z.object({
  router: z.string().describe("file of trained routers, as torch.save wrote it"),
  threshold: z.coerce
    .number()
    .min(0)
    .max(1)
    .default(0.1)
    .describe("score above which a branch is computed: the authors take 0.1 for DiT at 256², 0.9 for DiT at 512² and for U-ViT"),
  family: z
    .enum(["dit", "u-vit"])
    .default("dit")
    .describe("whose routers: dit: one a step, counted from the last; u-vit: one for two evaluations, counted from the first"),
});

/**
 * The router that decides at evaluation k; undefined if all is computed. horseee/learning-to-cache, `DiT/models/dynamic_models.py`:
 * the counter runs down from steps − 1, and at odd counts the cache is emptied. `U-ViT/libs/uvit_dynamic.py`: the cache is
 * emptied before the second evaluation of every step of a solver of second order; the first reads router k / 2.
 */
const ROUTER_AT = {
  dit: (k: number, steps: number): number | undefined => ((steps - 1 - k) % 2 === 0 ? steps - 1 - k : undefined),
  "u-vit": (k: number): number | undefined => (k % 2 === 0 ? k / 2 : undefined),
};

export default {
  name: "learning-to-cache",
  summary: "reuse where trained routers say so (Learning-to-Cache's files)",
  needs: [],
  options,
  choose({ steps, sites, readTensors }, { router: file, threshold, family }) {
    const routed = sites.filter((site) => placeOf(site) >= 0);
    const depth = Math.max(0, ...routed.map(({ block }) => block + 1));
    const routers = scoresOf(readTensors(file), file);
    if (routers.length !== steps) throw badRouter(file, `they are for ${routers.length} steps, and the run has ${steps}`);
    const odd = routers.find((scores) => scores.length !== 2 * depth);
    if (odd) throw badRouter(file, `they have ${odd.length} logits, and two for each of ${depth} blocks are needed`);
    const computes = (site: PolicySite, k: number): boolean => {
      const router = ROUTER_AT[family](k, steps);
      return k === 0 || router === undefined || (routers[router]?.[placeOf(site)] ?? 1) > threshold;
    };
    return { cells: new Map(routed.map((site) => [site.name, Array.from({ length: steps }, (_, k) => (computes(site, k) ? 1 : 0))])) };
  },
} satisfies Policy<typeof options>;

/** The index of a branch's score in a router; −1 for kinds that routers do not cover. */
function placeOf({ kind, block }: PolicySite): number {
  return kind === "attn" ? 2 * block : kind === "mlp" ? 2 * block + 1 : -1;
}

/** The scores of every router: the sigmoid of its logits. Throws BAD_ROUTER. */
function scoresOf(tensors: ReadonlyMap<string, TensorData>, file: string): readonly (readonly number[])[] {
  const names = [...tensors.keys()].filter((name) => /^(routers\.)?\d+\.prob$/.test(name));
  if (names.length === 0) throw badRouter(file, "there are none in the file");
  const prefix = names[0]?.startsWith("routers.") ? "routers." : "";
  return names.map((_, i) => {
    const name = `${prefix}${i}.prob`;
    const data = tensors.get(name);
    if (!data) throw badRouter(file, `'${name}' is missing`);
    const scores = tensorNumbers(data).map((logit) => 1 / (1 + Math.exp(-logit)));
    if (scores.some(Number.isNaN)) throw badRouter(file, `'${name}' has a logit that is not a number`);
    return scores;
  });
}
