/** Files of torch.save, written by torch itself (`fixtures/routers/generate.py`), read without it. */
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { tensorNumbers } from "../ir/tensor.js";
import { readTorchFile } from "../src/files/torch-file.js";

const FIXTURES = join(import.meta.dirname, "fixtures", "routers");

describe("readTorchFile", () => {
  it("reads types, shapes and views; what stands in a list is not found", () => {
    const tensors = readTorchFile(join(FIXTURES, "tensors.pt"));
    expect([...tensors.keys()]).toEqual(["half", "view"]);
    const found = [...tensors.values()].map((data) => ({ elem: data.elem, shape: data.shape, numbers: tensorNumbers(data) }));
    expect(found).toEqual([
      { elem: "float16", shape: [1, 2], numbers: [1.5, 2] },
      { elem: "int64", shape: [3], numbers: [2, 3, 4] },
    ]);
  });

  it("finds tensors in dictionaries of dictionaries, beside an optimiser's state and a script's arguments", () => {
    const names = [...readTorchFile(join(FIXTURES, "dit.pt")).keys()];
    expect(names.slice(0, 6)).toEqual([0, 1, 2, 3, 4, 5].map((step) => `routers.${step}.prob`));
    expect(names).toContain("opt.state.0.exp_avg");
  });

  it("reads the same routers from either form of file", () => {
    const bare = readTorchFile(join(FIXTURES, "u-vit.pth"));
    const among = readTorchFile(join(FIXTURES, "dit.pt"));
    expect(bare.size).toBe(6);
    for (const [name, data] of bare) expect(tensorNumbers(data)).toEqual(tensorNumbers(among.get(`routers.${name}`) ?? data));
  });
});
