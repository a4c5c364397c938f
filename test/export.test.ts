/** The export recipes, on a machine that has PyTorch. */
import { execFile } from "node:child_process";
import { mkdtempSync, readFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { promisify } from "node:util";
import { z } from "zod";
import { describe, expect, it } from "vitest";
import { ditView } from "../ir/graph.js";
import { lift } from "../ir/lift/index.js";
import { readModel } from "../ir/onnx/index.js";
import { missingModules, PYTHON } from "./support/python.js";

const SCRIPT = resolve(import.meta.dirname, "..", "examples", "export", "export.py");

describe("examples/export", () => {
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
