/** What is known about a model: its ports, blocks and branches, and their cost. */
import { join } from "node:path";
import { type Macs, NO_MACS, stepCost, totalMacs } from "../ir/cost.js";
import type { Branch } from "../ir/dit.js";
import { ditView, type Model, opsetOf } from "../ir/graph.js";
import type { TensorType } from "../ir/types.js";
import { instrument } from "../passes/index.js";
import { runPasses } from "../passes/pass.js";
import { prepareFile, npyBytes, readNpy, writeWhole } from "./files/index.js";
import { perStepCandidates, type Recipe } from "./job/index.js";
import { AS_WRITTEN, type RuntimeOptions, Session, type Tensors } from "./runtime/index.js";

export interface PortReport {
  readonly name: string;
  readonly elem: string;
  readonly shape: readonly (number | string | null)[] | null;
  /** latent, timestep, condition, guidance (an embedded scale) or prediction. */
  readonly role: string;
  /** Of a condition that may want a value for each step ("perStep" in recipe.json): why. */
  readonly perStep?: string | undefined;
}

export interface BranchReport extends Branch {
  /** Name of the ONNX value. */
  readonly value: string;
  readonly shape: readonly (number | string | null)[] | null;
  /** Multiply-accumulate operations of one step that are saved when the branch is not computed. */
  readonly macs: number;
}

/** A network of a run that calls several. */
export interface NetworkReport {
  /** The file, as the recipe names it. */
  readonly model: string;
  /** The first row of the sampler's table that calls it, as far as the scheduler is known. */
  readonly from: number | null;
  /** The time below which it is called, if the recipe says so. */
  readonly belowTime?: number | undefined;
}

export interface Inspection {
  readonly format: "smoothcc-inspect/1";
  /** In the order of the rows that call them, if there are several. All else is of the first, and is the same in the others. */
  readonly networks?: readonly NetworkReport[] | undefined;
  readonly recogniser: string;
  readonly nodes: number;
  readonly opset: number;
  readonly inputs: readonly PortReport[];
  readonly outputs: readonly PortReport[];
  readonly branches: readonly BranchReport[];
  /** Branches that do not depend on the latent. They are hoisted out of the steps, so plans do not cover them. */
  readonly constant: readonly Branch[];
  /** Of one step at the bound batch. `hoisted` depends only on time and conditions and is moved out of the steps. */
  readonly macs: Macs & { readonly total: number; readonly cacheable: number; readonly hoisted: number };
  readonly warnings: readonly string[];
}

/** Shapes and MACs are included as far as they are known; in a bound model all are. */
export function inspect(model: Model): Inspection {
  const { graph } = model;
  const view = ditView(model);
  const cost = stepCost(model);
  const values = new Map(graph.marks.map(({ site, value }) => [site, value]));
  const roles = new Map([
    [view.latent, "latent"],
    [view.timestep ?? "", "timestep"],
    ...view.conditions.map((name) => [name, "condition"] as const),
  ]);
  const candidates = perStepCandidates(model);
  const branches = view.branches.map((branch) => {
    const value = values.get(branch.site);
    return {
      ...branch,
      value: value?.name ?? "",
      shape: value?.type?.shape ?? null,
      macs: totalMacs(cost.branches.get(branch.site) ?? NO_MACS),
    };
  });
  return {
    format: "smoothcc-inspect/1",
    recogniser: view.recogniser,
    nodes: graph.nodes.length,
    opset: opsetOf(model),
    inputs: graph.inputs.map(({ name, type }) => {
      const perStep = candidates.get(name);
      return { ...port(name, type, roles.get(name) ?? "guidance"), ...(perStep !== undefined && { perStep }) };
    }),
    outputs: graph.outputs.map(({ name, value }) => port(name, value.type, name === view.prediction ? "prediction" : "unused")),
    branches,
    constant: view.constant,
    macs: {
      ...cost.total,
      total: totalMacs(cost.total),
      cacheable: branches.reduce((total, branch) => total + branch.macs, 0),
      hoisted: totalMacs(cost.hoisted),
    },
    warnings: view.warnings,
  };
}

/** The networks of a run, with the first rows that call each but the first; undefined if there is one. */
export function networksReported({ model, networks }: Recipe, borders: readonly number[] | undefined): Inspection["networks"] {
  if (networks.length === 0) return undefined;
  const others = networks.map(({ model: file, from, belowTime }, i) => ({ model: file, from: borders?.[i] ?? from ?? null, belowTime }));
  return [{ model, from: 0 }, ...others];
}

function port(name: string, type: TensorType | undefined, role: string): PortReport {
  return { name, elem: type?.elem ?? "unknown", shape: type?.shape ?? null, role };
}

export interface DumpOptions extends RuntimeOptions {
  /** Whether to overwrite existing files. */
  readonly force: boolean;
}

/**
 * Runs one step on the `.npy` files of a folder and writes `<site>.npy` for every branch; returns the sites.
 * Throws FILE_MISSING, FILE_EXISTS and what else reading, running and writing throw.
 */
export async function dumpBranches(lifted: Model, inputs: string, output: string, options: DumpOptions): Promise<readonly string[]> {
  const model = await runPasses(lifted, [instrument], options);
  const sites = ditView(model).branches.map(({ site }) => site);
  const fileOf = (site: string): string => join(output, `${site}.npy`);
  for (const site of sites) prepareFile(fileOf(site), options.force);
  const feeds = new Map(model.graph.inputs.map(({ name }) => [name, readNpy(join(inputs, `${name}.npy`))]));
  const session = await Session.open(model, { ...options, ...AS_WRITTEN });
  let results: Tensors;
  try {
    results = await session.run(feeds);
  } finally {
    await session.close();
  }
  for (const site of sites) {
    const data = results.get(site);
    if (data) await writeWhole(fileOf(site), npyBytes(data), options.force);
  }
  return sites;
}
