/** Every reader of files from outside: where its inputs come from, how they are changed, and what must hold for what it reads. */
import { readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { allNodes } from "../../ir/analysis.js";
import { check, explain } from "../../ir/check.js";
import { CompilerError } from "../../ir/diagnostics.js";
import { structureDigest } from "../../ir/digest.js";
import type { Attribute, Model } from "../../ir/graph.js";
import { encodeModel, readModel } from "../../ir/onnx/index.js";
import { parse } from "../../ir/parse.js";
import { print } from "../../ir/print.js";
import { formats, parseWith, samplerTable } from "../../schedules/index.js";
import { readManifest } from "../../src/artifact/index.js";
import { readTrace } from "../../src/calibration/index.js";
import { readJson, readNpy, readNpz, readTorchFile } from "../../src/files/index.js";
import { readPlan, recipeSchema } from "../../src/job/index.js";
import { mutations, type Mutation } from "./mutations.js";

export interface Reader {
  /** The name that an input has as a file. */
  readonly file: string;
  /** Which files of the repository are seeds. */
  readonly seeds: RegExp;
  readonly mutation: Mutation;
  /** Reads the file, and throws an error that is no CompilerError if a property does not hold. */
  readonly run: (file: string) => unknown;
}

export const readers: Readonly<Record<string, Reader>> = {
  onnx: {
    file: "input.onnx",
    seeds: /\.onnx$/,
    mutation: mutations.wire,
    run: async (file) => {
      const model = await readModel(file);
      assertPrinted(model);
      await assertWritten(model, dirname(file));
    },
  },
  text: {
    file: "input.txt",
    seeds: /cases\/passes\/.*\.txt$|\.onnx\.txt$/,
    mutation: mutations.text,
    run: async (file) => {
      // Behind this line a case of a pass has what the pass makes.
      const [before = ""] = readFileSync(file, "utf8").split("\n---\n");
      const model = parse(before);
      assertPrinted(model);
      await assertWritten(model, dirname(file));
    },
  },
  recipe: {
    file: "recipe.json",
    seeds: /recipe\w*\.json$/,
    mutation: mutations.json,
    run: (file) => parseWith(recipeSchema, readJson(file), file),
  },
  plan: {
    file: "plan.json",
    seeds: /(plan|stack|tensors|gap|bins|terms|window|attn|half)\.json$/,
    mutation: mutations.json,
    run: (file) => {
      const schedule = readPlan(file);
      for (const format of formats.values())
        attempt(() =>
          format.write(schedule, [{ name: "attn-0", site: "attn-0", stream: "image", kind: "attn", block: 0, halves: ["cond"] }]),
        );
    },
  },
  trace: { file: "trace.json", seeds: /trace\.json$/, mutation: mutations.json, run: readTrace },
  manifest: { file: "manifest.json", seeds: /manifest\.json$/, mutation: mutations.json, run: (file) => readManifest(dirname(file)) },
  scheduler: {
    file: "scheduler_config.json",
    seeds: /scheduler(_config)?\.json$|table\.json$|samplers\/.*\.json$/,
    mutation: mutations.json,
    run: (file) => {
      const json = readJson(file);
      // Recorded trajectories hold the configuration of their scheduler.
      const config = typeof json === "object" && json !== null && "scheduler_config" in json ? json.scheduler_config : json;
      for (const [steps, start] of [
        [1, 0],
        [7, 0],
        [50, 20],
      ] as const)
        // prettier-ignore
        attempt(() => samplerTable(config, { steps, start, nonlinear: true }));
      samplerTable(config, { steps: 20, mu: 0.5 });
    },
  },
  npy: { file: "input.npy", seeds: /\.npy$/, mutation: mutations.npy, run: readNpy },
  npz: { file: "input.npz", seeds: /\.npz$/, mutation: mutations.npz, run: readNpz },
  pt: { file: "input.pt", seeds: /\.pth?$/, mutation: mutations.pt, run: readTorchFile },
};

/** A CompilerError is an answer. */
function attempt(answer: () => unknown): void {
  try {
    answer();
  } catch (error) {
    if (!(error instanceof CompilerError)) throw error;
  }
}

/** Constants of more elements are elided in the texts that are compared. */
const PRINTED = 64;

/** The text of a model reads as a model with the same text, and the same structure as far as the text has all of it. */
function assertPrinted(model: Model): void {
  explain(model, check(model));
  const text = print(model, PRINTED);
  let again: Model;
  try {
    again = parse(text);
  } catch (error) {
    throw new Error(`the printed model is not read: ${error instanceof Error ? error.message : String(error)}`, { cause: error });
  }
  assertEqual("the text", text, print(again, PRINTED));
  if (!hasAttributes(model, "opaque")) assertEqual("the digest of the text", structureDigest(model), structureDigest(again));
}

/**
 * What is written reads as a model of the same structure, but for graphs of nodes, which are read as bytes, for attributes that are kept as
 * bytes, of which a field that a damaged file has twice is written once, and for an Identity where a value has two names. It is written as
 * the same bytes.
 */
async function assertWritten(model: Model, folder: string): Promise<void> {
  let bytes: Uint8Array;
  try {
    bytes = encodeModel(model, { base: folder });
  } catch (error) {
    if (error instanceof CompilerError) return;
    throw error;
  }
  const file = join(folder, "written.onnx");
  writeFileSync(file, bytes);
  let again: Model;
  try {
    again = await readModel(file);
  } catch (error) {
    throw new Error(`the written model is not read: ${error instanceof Error ? error.message : String(error)}`, { cause: error });
  }
  if (again.graph.nodes.length === model.graph.nodes.length && !hasAttributes(model, "graph") && !hasAttributes(model, "opaque"))
    assertEqual("the digest of the written model", structureDigest(model), structureDigest(again));
  assertEqual("the bytes", Buffer.from(bytes).toString("latin1"), Buffer.from(encodeModel(again, { base: folder })).toString("latin1"));
}

function hasAttributes(model: Model, kind: Attribute["kind"]): boolean {
  return allNodes(model.graph).some(({ attributes }) => [...attributes.values()].some((attribute) => attribute.kind === kind));
}

function assertEqual(what: string, one: string, other: string): void {
  if (one === other) return;
  let at = 0;
  while (one[at] === other[at]) at++;
  const near = (text: string): string => JSON.stringify(text.slice(Math.max(0, at - 40), at + 40));
  throw new Error(`${what} differs at ${at}: ${near(one)} and ${near(other)}`);
}
