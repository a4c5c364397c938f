/**
 * A network of two blocks with one thing changed, as people do to their exports: each has the branches of the plain one, and what is
 * compiled of it is what a loop over the file gives.
 */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { z } from "zod";
import { tensorOf } from "../ir/tensor.js";
import { npyBytes } from "../src/files/npy.js";
import { cli } from "./support/cli.js";

const FOLDER = join(import.meta.dirname, "fixtures", "reports");
const folder = mkdtempSync(join(tmpdir(), "smoothcc-reports-"));
const plan = join(folder, "plan.json");
writeFileSync(plan, JSON.stringify({ "*": [1, 0, 1, 0] }));
afterAll(() => {
  rmSync(folder, { recursive: true, force: true });
});

const inspection = z.object({
  branches: z.array(z.object({ kind: z.string(), block: z.int(), stream: z.string(), gated: z.boolean(), macs: z.int() })),
  macs: z.object({ total: z.int(), hoisted: z.int() }),
});
const verification = z.object({ ok: z.boolean(), checks: z.array(z.object({ name: z.string(), relL2: z.number(), limit: z.number() })) });

/** The branches of the plain file; `input-added-twice` has a third block. */
const PAIR = ["attn", "mlp"];
const CASES = [
  { name: "plain", blocks: 2, kinds: PAIR, words: ["--input", "y=1"] },
  { name: "input-added-twice", blocks: 3, kinds: PAIR, words: ["--input", "extra=0.3", "--input", "y=1"] },
  { name: "parallel-sum", blocks: 2, kinds: ["single"], words: ["--input", "y=1"] },
  {
    name: "packed-text",
    blocks: 2,
    kinds: ["attn", "cross_attn", "mlp"],
    words: ["--recipe", join(folder, "recipe.json"), "--input", "text=0.3"],
  },
  { name: "qdq-products", blocks: 2, kinds: PAIR, words: ["--input", "y=1"] },
  { name: "qdq-in-front-of-sine", blocks: 2, kinds: PAIR, words: ["--input", "y=1"] },
  { name: "dynamic-int8", blocks: 2, kinds: PAIR, words: ["--input", "y=1"] },
  { name: "skip-layer-norm", blocks: 2, kinds: PAIR, words: ["--input", "y=1"] },
  { name: "if-by-shape", blocks: 2, kinds: PAIR, words: ["--dim", "labels=1", "--input", "y=1"] },
  { name: "half-cast", blocks: 2, kinds: PAIR, words: ["--input", "y=1"] },
  { name: "float8-between", blocks: 2, kinds: PAIR, words: ["--input", "y=1"] },
  { name: "ir-14", blocks: 2, kinds: PAIR, words: ["--input", "y=1"] },
];
/** Packed text has a fixed size where its mask is fixed. */
writeFileSync(join(folder, "mask.npy"), npyBytes(tensorOf("int64", [1, 3], [1, 0, 1])));
writeFileSync(join(folder, "recipe.json"), JSON.stringify({ model: "packed-text.onnx", inputs: { mask: { fix: "mask.npy" } } }));

describe.each(CASES)("$name", ({ name, blocks, kinds, words }) => {
  const file = join(FOLDER, `${name}.onnx`);
  const setting = ["--scheduler", join(FOLDER, "scheduler_config.json"), "--steps", "4"];

  it("has its branches, whose compute is that of the plain file", async () => {
    const { stdout } = await cli(["inspect", file, ...words.slice(0, words.indexOf("--input")), "--json"]);
    const { branches, macs } = inspection.parse(JSON.parse(stdout));
    const expected = Array.from({ length: blocks }, (_, block) => kinds.map((kind) => ({ kind, block }))).flat();
    expect(branches.map(({ kind, block }) => ({ kind, block }))).toEqual(expected);
    if (blocks !== 2 || kinds !== PAIR) return;
    const plain = inspection.parse(JSON.parse((await cli(["inspect", join(FOLDER, "plain.onnx"), "--json"])).stdout));
    expect({ branches, macs }).toEqual(plain);
  });

  it("compiles to what the plan says", async () => {
    const artifact = join(folder, name);
    const compiled = await cli(["compile", file, ...setting, ...words, "--plan", plan, "-o", artifact, "--quiet"]);
    expect(compiled.exit, compiled.stderr).toBe(0);
    const verified = await cli(["verify", artifact, "--json", ...words.slice(words.indexOf("--input"))]);
    const { ok, checks } = verification.parse(JSON.parse(verified.stdout));
    expect({ ok, names: checks.map((check) => check.name) }).toEqual({
      ok: true,
      names: ["files have the digests of SHA256SUMS", "artifact = plan-aware loop over the original step", "lifted step = exported step"],
    });
  });
});
