/** The exports with recorded truth under `test/fixtures`, found by what is there. */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { basename, join, resolve } from "node:path";
import { z } from "zod";
import type { Model } from "../../ir/graph.js";
import { type TensorData, tensorNumbers } from "../../ir/tensor.js";
import { readNpy } from "../../src/files/npy.js";

const ROOT = resolve(import.meta.dirname, "..", "fixtures");

const branchesSchema = z.array(
  z.object({
    file: z.string(),
    module: z.string(),
    kind: z.string(),
    block_index: z.int(),
    stream: z.string(),
    gated: z.boolean(),
    /** Inputs that change the value. */
    depends_on: z.array(z.string()),
    /** Behind the norm between branch and gate. */
    post_norm: z.object({ file: z.string() }).optional(),
  }),
);
const configSchema = z.object({ latent: z.string(), timestep: z.string() });
/** What ONNX Runtime and PyTorch differ by on each export, as measured when it was made. */
const reportSchema = z.record(z.string(), z.object({ relative_l2: z.number().optional() }));

export type RecordedBranch = z.infer<typeof branchesSchema>[number];

export interface Fixture {
  /** `dit/dynamo-20`. */
  readonly name: string;
  readonly folder: string;
  readonly model: string;
  readonly scheduler: string;
  readonly latent: string;
  readonly timestep: string;
  /** Those that depend on the latent, and those that do not. */
  readonly branches: readonly RecordedBranch[];
  readonly constant: readonly RecordedBranch[];
  /** How far a branch may be from PyTorch's: rounding, and twice what the whole export is off. */
  readonly tolerance: number;
  /** Whether the network computes in float16. */
  readonly isHalf: boolean;
}

/** Every export of every architecture. */
export const fixtures: readonly Fixture[] = readdirSync(ROOT)
  .filter((architecture) => existsSync(join(ROOT, architecture, "branches.json")))
  .flatMap((architecture) => {
    const folder = join(ROOT, architecture);
    const json = (file: string): unknown => JSON.parse(readFileSync(join(folder, file), "utf8"));
    const all = branchesSchema.parse(json("branches.json"));
    const { latent, timestep } = configSchema.parse(json("config.json"));
    const report = reportSchema.parse(json("report.json"));
    const changes = ({ depends_on }: RecordedBranch): boolean => depends_on.includes(latent);
    const exports = readdirSync(folder).filter((file) => file.endsWith(".onnx"));
    return exports.map((file) => ({
      name: `${architecture}/${basename(file, ".onnx")}`,
      folder,
      model: join(folder, file),
      scheduler: join(folder, "scheduler_config.json"),
      latent,
      timestep,
      branches: all.filter(changes),
      constant: all.filter((branch) => !changes(branch)),
      tolerance: Math.max(1e-5, 2 * (report[basename(file, ".onnx")]?.relative_l2 ?? 0)),
      isHalf: architecture.endsWith("_fp16"),
    }));
  });

/** The recorded inputs of a graph, by name. */
export function recordedInputs({ folder }: Fixture, model: Model, names: ReadonlyMap<string, string> = new Map()): Map<string, TensorData> {
  return new Map(model.graph.inputs.map(({ name }) => [name, readNpy(join(folder, "inputs", `${names.get(name) ?? name}.npy`))]));
}

export function recorded({ folder }: Fixture, file: string): number[] {
  return tensorNumbers(readNpy(join(folder, file)));
}

export function fixtureNamed(name: string): Fixture {
  const found = fixtures.find((fixture) => fixture.name === name);
  if (!found) throw new Error(`there is no fixture ${name}`);
  return found;
}
