/** Feed-forward networks of every kind: whatever stands between their layers, lifting finds the branches that PyTorch has, with their values. */
import { readdirSync, readFileSync } from "node:fs";
import { basename, join } from "node:path";
import { describe, expect, it } from "vitest";
import { z } from "zod";
import { ditView } from "../ir/graph.js";
import { lift } from "../ir/lift/index.js";
import { readModel } from "../ir/onnx/index.js";
import { type TensorData, tensorNumbers, tensorOf } from "../ir/tensor.js";
import { relativeL2 } from "../schedules/index.js";
import { Session } from "../src/runtime/session.js";

/** Made by `generate.py` there: `<kind>.<exporter>.onnx`, and what PyTorch computes. */
const FOLDER = join(import.meta.dirname, "fixtures", "activations");
const WIDTH = 6;

const numbers = z.array(z.number());
const branch = z.object({ kind: z.string(), block: z.int(), stream: z.string(), gated: z.boolean(), values: numbers });
const network = z.object({ inputs: z.object({ x: numbers, t: numbers, y: numbers }), prediction: numbers, branches: z.array(branch) });
const expected = z.record(z.string(), network).parse(JSON.parse(readFileSync(join(FOLDER, "expected.json"), "utf8")));

const files = readdirSync(FOLDER).flatMap((file) => (file.endsWith(".onnx") ? [basename(file, ".onnx")] : []));

/** The numbers token after token. A branch that ends in a convolution has them channel after channel. */
function tokensFirst(value: TensorData): number[] {
  const values = tensorNumbers(value);
  if (value.shape[1] !== WIDTH || value.shape.at(-1) === WIDTH) return values;
  const tokens = values.length / WIDTH;
  return values.map((_, i) => values[(i % WIDTH) * tokens + Math.floor(i / WIDTH)] ?? NaN);
}

describe("a feed-forward network is found, whatever stands between its layers", () => {
  it("and both exporters wrote every kind", () => {
    expect(files.toSorted()).toEqual(
      Object.keys(expected)
        .flatMap((kind) => [`${kind}.dynamo-20`, `${kind}.torchscript-17`])
        .toSorted(),
    );
  });

  it.each(files)("%s", async (name) => {
    const truth = expected[name.split(".")[0] ?? ""];
    if (!truth) throw new Error("nothing is recorded");
    const lifted = lift(await readModel(join(FOLDER, `${name}.onnx`)));
    const { branches, constant } = ditView(lifted);
    expect(branches.map(({ kind, block, stream, gated }) => ({ kind, block, stream, gated }))).toEqual(
      truth.branches.map(({ kind, block, stream, gated }) => ({ kind, block, stream, gated })),
    );
    expect(constant).toEqual([]);

    const [prediction] = lifted.graph.outputs;
    const probes = lifted.graph.marks.map(({ site, value }) => ({ name: site, value }));
    const outputs = [...probes, ...(prediction ? [{ name: "prediction", value: prediction.value }] : [])];
    const session = await Session.open({ ...lifted, graph: { ...lifted.graph, outputs } }, { optimise: "disabled" });
    const { x, t, y } = truth.inputs;
    const results = await session.run(
      new Map([
        ["x", tensorOf("float", [1, 2, 4, 4], x)],
        ["t", tensorOf("int64", [1], t)],
        ["y", tensorOf("int64", [1], y)],
      ]),
    );
    await session.close();
    for (const [i, [site, value]] of [...results].entries()) {
      const recorded = truth.branches[i]?.values ?? truth.prediction;
      expect(relativeL2(tokensFirst(value), recorded), site).toBeLessThanOrEqual(1e-5);
    }
  });
});
