/** Operators that are in no table: they are named, with what they cost, whether the runtime loads the model or not. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { z } from "zod";
import { graphMacs, totalMacs, unsavedBehind } from "../ir/cost.js";
import { makeNode, type Model, type Node, withGraph } from "../ir/graph.js";
import { readModel, writeModel } from "../ir/onnx/index.js";
import { parse } from "../ir/parse.js";
import { rewrite } from "../ir/rewrite.js";
import { unknownBetween } from "../ir/unknown.js";
import { cli } from "./support/cli.js";

const PLAIN = join(import.meta.dirname, "fixtures", "deployed", "plain.onnx");

let folder = "";
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "smoothcc-unknown-"));
  writeFileSync(join(folder, "scheduler_config.json"), JSON.stringify({ _class_name: "DDIMScheduler" }));
});
afterAll(() => {
  rmSync(folder, { recursive: true, force: true });
});

/** The plain network with nodes that `chosen` picks by another operator of the same operands and results. */
async function withOperator(domain: string, opType: string, chosen: (node: Node) => boolean): Promise<Model> {
  const plain = await readModel(PLAIN);
  const graph = rewrite(plain.graph, (node, original) => {
    if (!chosen(original)) return undefined;
    const made = makeNode({ ...node, domain, opType, attributes: new Map() });
    return { nodes: [made], outputs: made.outputs };
  });
  return { ...withGraph(plain, graph), opsets: new Map([[domain, 1], ...plain.opsets]) };
}

const REPORT = z.object({
  branches: z.array(z.object({ site: z.string() })),
  warnings: z.array(z.string()),
  macs: z.object({ total: z.number(), cacheable: z.number(), hoisted: z.number() }),
});

async function inspected(model: Model): Promise<z.infer<typeof REPORT>> {
  const file = join(folder, "model.onnx");
  await writeModel(model, file, { external: "none" });
  const { exit, stdout, stderr } = await cli(["inspect", file, "--json"]);
  expect([exit, stderr]).toEqual([0, ""]);
  return REPORT.parse(JSON.parse(stdout));
}

describe("inspect", () => {
  it("says nothing where all operators are known", async () => {
    expect((await inspected(await readModel(PLAIN))).warnings).toEqual([]);
  });

  it("names what no runtime loads", async () => {
    const { branches, warnings } = await inspected(await withOperator("my.domain", "Bend", ({ opType }) => opType === "Tanh"));
    expect(branches.map(({ site }) => site)).toContain("attn-0");
    expect(warnings[0]).toMatch(/^2 nodes between latent and prediction have operators that are not known here \(my\.domain\.Bend\)\./);
    expect(warnings.join(" ")).toMatch(/my\.domain/);
  });

  it("names what only the runtime knows, with what it costs", async () => {
    const { warnings, macs } = await inspected(await withOperator("com.microsoft", "SampleOp", ({ opType }) => opType === "Tanh"));
    // Behind the last feed-forward there is one product more: 4 tokens of 16 channels become 8.
    const share = ((100 * 4 * 16 * 8) / macs.total).toFixed(0);
    expect(warnings[0]).toBe(
      `2 nodes between latent and prediction have operators that are not known here (com.microsoft.SampleOp). Branches may be missing there: what these nodes compute is not counted, and ${share} % of a step's MACs are behind them and in no branch.`,
    );
  });

  it("names them where nothing is recognised", async () => {
    const model = parse(`<ir_version: 10, opset_import: ["" : 20, "com.microsoft" : 1]>
      g (float[1,2,4,4] x, float[1] timestep) => (float[1,2,4,4] out)
      { a = Sin(timestep) b = Mul(x, a) out = com.microsoft.SampleOp(b) }`);
    const file = join(folder, "model.onnx");
    await writeModel(model, file, { external: "none" });
    const { exit, stderr } = await cli(["inspect", file]);
    expect(exit).toBe(3);
    expect(stderr).toMatch(
      /1 node between latent and prediction has an operator that is not known here \(com\.microsoft\.SampleOp\), which may be why\./,
    );
  });
});

describe("nodes that are not known", () => {
  const model = parse(`<ir_version: 10, opset_import: ["" : 20, "my.domain" : 1]>
    g (float[2,4] x, float[2,4] y) => (float[2,3] out, float[2,4] other)
    <float[4,4] w = {${"1,".repeat(15)}1}, float[4,3] v = {${"1,".repeat(11)}1}, float[2,4] a, float[2,4] b, float[2,4] c, float[2,4] d, float[2,4] e>
    {
      a = MatMul(x, w)
      b = my.domain.Bend(a)
      c = my.domain.Bend(y)
      d = Add(b, c)
      other = my.domain.Lost(d)
      e = MatMul(d, w)
      out = MatMul(e, v)
    }`);
  const found = unknownBetween(model.graph, "x", "out");

  it("are those that the latent goes through to the prediction", () => {
    expect(found.map(({ outputs }) => outputs[0]?.name)).toEqual(["b"]);
    expect(unknownBetween(model.graph, "y", "out").map(({ outputs }) => outputs[0]?.name)).toEqual(["c"]);
    expect(unknownBetween(model.graph, "x", "other").map(({ opType }) => opType)).toEqual(["Bend", "Lost"]);
  });

  it("have what is computed from them behind them, but for what branches save", () => {
    expect(totalMacs(graphMacs(model.graph))).toBe(2 * 32 + 24);
    expect(totalMacs(unsavedBehind(model, found))).toBe(32 + 24);
    const e = model.graph.nodes.find(({ outputs }) => outputs[0]?.name === "e")?.outputs[0];
    if (!e) throw new Error("there is no e");
    const marked = withGraph(model, {
      ...model.graph,
      outputs: model.graph.outputs.slice(0, 1),
      marks: [{ site: "attn-0", half: "cond", step: 0, value: e }],
    });
    expect(totalMacs(unsavedBehind(marked, found))).toBe(24);
  });
});
