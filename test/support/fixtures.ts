/** The exports with recorded truth under `test/fixtures`, found by what is there. */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { z } from "zod";
import type { Model } from "../../ir/graph.js";
import { tensorNumbers, type TensorData } from "../../ir/tensor.js";
import { readNpy } from "../../src/npy.js";

const ROOT = resolve(import.meta.dirname, "..", "fixtures");

const branchesSchema = z.array(
  z.object({ file: z.string(), module: z.string(), kind: z.string(), block_index: z.int(), stream: z.string(), gated: z.boolean() }),
);

export type RecordedBranch = z.infer<typeof branchesSchema>[number];

export interface Fixture {
  /** `dit/dynamo-20`. */
  readonly name: string;
  readonly folder: string;
  readonly model: string;
  readonly scheduler: string;
  readonly branches: readonly RecordedBranch[];
}

/** Every export of every architecture. */
export const fixtures: readonly Fixture[] = readdirSync(ROOT)
  .filter((architecture) => existsSync(join(ROOT, architecture, "branches.json")))
  .flatMap((architecture) => {
    const folder = join(ROOT, architecture);
    const branches = branchesSchema.parse(JSON.parse(readFileSync(join(folder, "branches.json"), "utf8")));
    const exports = readdirSync(folder).filter((file) => file.endsWith(".onnx"));
    return exports.map((file) => ({
      name: `${architecture}/${file.replace(/\.onnx$/, "")}`,
      folder,
      model: join(folder, file),
      scheduler: join(folder, "scheduler_config.json"),
      branches,
    }));
  });

/** The recorded inputs of a graph, by name. */
export function recordedInputs({ folder }: Fixture, model: Model, names: ReadonlyMap<string, string> = new Map()): Map<string, TensorData> {
  return new Map(model.graph.inputs.map(({ name }) => [name, readNpy(join(folder, "inputs", `${names.get(name) ?? name}.npy`))]));
}

export function recorded({ folder }: Fixture, file: string): number[] {
  return tensorNumbers(readNpy(join(folder, file)));
}
