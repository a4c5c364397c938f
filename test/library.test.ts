/** The package as a library: what the contract says can be imported is there, built, and does its work. */
import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { describe, expect, it } from "vitest";
import { build, calibrate, compile, verify } from "smoothcc";
import { check, lift, parse, print, read, write } from "smoothcc/ir";
import { passes, runPasses } from "smoothcc/passes";
import { bind, policies, samplerTable } from "smoothcc/schedules";

const GLYPHS = resolve(import.meta.dirname, "..", "examples", "glyphs");

describe("the library", () => {
  it("reads, lifts, checks and writes a model", async () => {
    const model = lift(await read(join(GLYPHS, "model.onnx")));
    expect(check(model)).toEqual([]);
    expect(model.dit?.branches).toHaveLength(16);
    const copy = join(mkdtempSync(join(tmpdir(), "smoothcc-library-")), "copy.onnx");
    await write(model, copy);
    expect(lift(await read(copy)).dit).toEqual(model.dit);
  });

  it("prints and parses text", () => {
    const text = 'ir_version: 10, opset_import: ["" : 20]';
    expect(print(parse(`<${text}> g (float[2] x) => (float[2] y) { y = Relu(x) }`))).toContain("Relu(x)");
  });

  it("has the passes, policies and samplers by name", () => {
    expect([...passes.keys()]).toEqual(expect.arrayContaining(["cse", "dce", "fold", "reuse", "unroll"]));
    expect([...policies.keys()]).toEqual(expect.arrayContaining(["fora", "full", "smoothcache"]));
    expect(samplerTable({ _class_name: "DDIMScheduler", clip_sample: false }, { steps: 5 }).rows).toHaveLength(5);
    for (const exported of [build, calibrate, compile, verify, runPasses, bind]) expect(exported).toBeTypeOf("function");
  });
});
