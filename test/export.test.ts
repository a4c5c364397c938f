/** The export recipes, on a machine that has PyTorch. */
import { execFile } from "node:child_process";
import { mkdtempSync, readFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { promisify } from "node:util";
import { z } from "zod";
import { describe, expect, it } from "vitest";
import { ditView } from "../ir/graph.js";
import { lift } from "../ir/lift/index.js";
import { readModel } from "../ir/onnx/index.js";
import { missingModules, PYTHON } from "./support/python.js";

const SCRIPT = resolve(import.meta.dirname, "..", "examples", "export", "export.py");

/** Every way to call what is patched, once in PyTorch and once with the patches; prints the differences. */
const PATCHED = `
import torch
from workarounds import exportable
x, a, b = torch.randn(2, 1, 3, 1), torch.randn(2, 3, 4, 2), torch.randn(2, 3, 4, 2)
q, k = torch.randn(2, 5, 4, 7, 8), torch.randn(2, 5, 2, 7, 8)
def called(pairs):
    yield from (x.squeeze(), x.squeeze(1), x.squeeze(0), x.squeeze(-1), x.squeeze((1, 3)), x.squeeze((0, -1)))
    yield from (x.squeeze(dim=1), x.squeeze(dim=0), x.squeeze(dim=(0, 3)))
    yield from (torch.squeeze(x), torch.squeeze(x, 1), torch.squeeze(x, dim=0), torch.squeeze(input=x, dim=3))
    yield from (torch.view_as_real(product) for product in pairs())
    yield torch.nn.functional.scaled_dot_product_attention(q, k, k, enable_gqa=True)
complex = torch.view_as_complex
known = list(called(lambda: [complex(a) * complex(b)] * 3))
with exportable():
    complex = torch.view_as_complex
    patched = list(called(lambda: [complex(a) * b, b * complex(a), complex(a) * complex(b)]))
for i, (one, other) in enumerate(zip(known, patched, strict=True)):
    if one.shape != other.shape or not torch.allclose(one, other, atol=1e-6): print(i, one.shape, other.shape)
`;

describe("examples/export", () => {
  it("changes no number by its patches, however what they replace is called", { timeout: 120_000 }, async (ctx) => {
    const reason = missingModules("torch");
    if (reason !== undefined) return ctx.skip(reason);
    const { stdout } = await promisify(execFile)(PYTHON, ["-c", PATCHED], { cwd: dirname(SCRIPT) });
    expect(stdout).toBe("");
  });

  it.for(["dynamo", "torchscript"])(
    "writes a DiT that can be lifted, with the exporter %s",
    { timeout: 300_000 },
    async (exporter, ctx) => {
      const reason = missingModules("torch", "diffusers", "onnx", "onnxscript");
      if (reason !== undefined) return ctx.skip(reason);
      const folder = mkdtempSync(join(tmpdir(), "smoothcc-export-"));
      const options = ["--arch", "dit", "--random", "--exporter", exporter, "-o", folder];
      await promisify(execFile)(PYTHON, [SCRIPT, ...options], { env: { ...process.env, OMP_NUM_THREADS: "1" } });
      const read = (file: string): unknown => JSON.parse(readFileSync(join(folder, file), "utf8"));
      expect(read("model_index.json")).toMatchObject({ transformer: ["diffusers", "DiTTransformer2DModel"] });
      expect(read("scheduler/scheduler_config.json")).toMatchObject({ _class_name: "DDIMScheduler", clip_sample: false });

      const model = await readModel(join(folder, "transformer", "model.onnx"));
      expect(model.graph.inputs.map(({ name }) => name)).toEqual(["hidden_states", "timestep", "class_labels"]);
      expect(model.graph.outputs.map(({ name }) => name)).toEqual(["prediction"]);
      const { num_layers: layers } = z.object({ num_layers: z.int() }).parse(read("transformer/config.json"));
      const modules = Array.from({ length: layers }, (_, i) => [`transformer_blocks.${i}.attn1`, `transformer_blocks.${i}.ff`]).flat();
      expect(ditView(lift(model)).branches.map(({ module }) => module)).toEqual(modules);
    },
  );
});
