/** float16 against the runtime's own Cast, which is another program's. */
import { describe, expect, it } from "vitest";
import { Builder } from "../ir/build.js";
import { inputValue } from "../ir/graph.js";
import { halfBits, halfValue } from "../ir/half.js";
import { readTensor, tensorNumbers, tensorOf } from "../ir/tensor.js";
import { Session } from "../src/runtime.js";
import { modelOf } from "./support/models.js";

const EDGES = [
  0,
  -0,
  1,
  -1,
  65504,
  65519,
  65520,
  65536,
  1e9,
  -1e9,
  2 ** -14,
  2 ** -24,
  2 ** -25,
  3 * 2 ** -25,
  1.0009765625,
  1.00048828125,
  1.00146484375,
];

describe("float16", () => {
  it("rounds as the runtime does", async () => {
    const values = Float32Array.from([...EDGES, ...Array.from({ length: 4000 }, (_, i) => Math.sin(i * 12.9898) * 2 ** ((i % 44) - 27))]);
    const build = new Builder();
    const x = inputValue("x", { elem: "float", shape: [values.length] });
    const y = build.cast(x, "float16", "y");
    const session = await Session.open(modelOf({ inputs: [x], outputs: [{ name: "y", value: y }], nodes: build.nodes }), {
      optimise: "disabled",
    });
    const result = (await session.run(new Map([["x", tensorOf("float", [values.length], values)]]))).get("y");
    await session.close();
    const bytes = result && Uint8Array.from(readTensor(result));
    expect(Array.from(values, halfBits)).toEqual(Array.from(new Uint16Array(bytes?.buffer ?? new ArrayBuffer(0))));
  });

  it("comes back from its bits", () => {
    for (let bits = 0; bits < 0x7c00; bits++) expect(halfBits(halfValue(bits))).toBe(bits);
    expect([halfValue(0x7c00), halfValue(0xfc00), halfValue(0x7e00)]).toEqual([Infinity, -Infinity, NaN]);
    expect(tensorNumbers(tensorOf("float16", [3], [0.1, -2, 70000]))).toEqual([0.0999755859375, -2, Infinity]);
  });
});
