/** float16 and bfloat16 against the runtime's own Cast, which is another program's. */
import { describe, expect, it } from "vitest";
import { Builder } from "../ir/build.js";
import { inputValue } from "../ir/graph.js";
import { bfloatBits, bfloatValue, halfBits, halfValue } from "../ir/float16.js";
import { convertTensor, tensorNumbers, tensorOf } from "../ir/tensor.js";
import { Session } from "../src/runtime/session.js";
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
  1.00390625,
  1.01171875,
  Infinity,
  -Infinity,
  NaN,
  3.4e38,
  3.3961e38,
  2 ** -126,
  2 ** -133,
  2 ** -134,
  3 * 2 ** -134,
];

describe.each(["float16", "bfloat16"] as const)("%s", (elem) => {
  it("rounds as the runtime does", async () => {
    const values = Float32Array.from([...EDGES, ...Array.from({ length: 4000 }, (_, i) => Math.sin(i * 12.9898) * 2 ** ((i % 44) - 27))]);
    const data = tensorOf("float", [values.length], values);
    const build = new Builder();
    const x = inputValue("x", { elem: "float", shape: [values.length] });
    const y = build.cast(build.cast(x, elem, "narrow"), "float", "y");
    const session = await Session.open(modelOf({ inputs: [x], outputs: [{ name: "y", value: y }], nodes: build.nodes }), {
      optimise: "disabled",
    });
    const result = (await session.run(new Map([["x", data]]))).get("y");
    await session.close();
    const expected = tensorNumbers(result ?? data);
    expect(tensorNumbers(tensorOf(elem, [values.length], values))).toEqual(expected);
    expect(tensorNumbers(convertTensor(convertTensor(data, elem), "float"))).toEqual(expected);
  });
});

describe("bits", () => {
  it("come back from their numbers", () => {
    for (let bits = 0; bits < 0x7c00; bits++) if (halfBits(halfValue(bits)) !== bits) expect(bits).toBe(-1);
    for (let bits = 0; bits < 0x7f80; bits++) if (bfloatBits(bfloatValue(bits)) !== bits) expect(bits).toBe(-1);
    expect([halfValue(0x7c00), halfValue(0xfc00), halfValue(0x7e00)]).toEqual([Infinity, -Infinity, NaN]);
    expect([bfloatValue(0x7f80), bfloatValue(0xff80), bfloatValue(0x7fc0)]).toEqual([Infinity, -Infinity, NaN]);
    expect(tensorNumbers(tensorOf("float16", [3], [0.1, -2, 70000]))).toEqual([0.0999755859375, -2, Infinity]);
  });

  it("are rounded once, whatever float the number has been nearest to", () => {
    // Half-way between two float16 and a little more, which a float does not have.
    expect(halfBits(1 + 2 ** -11 + 2 ** -40)).toBe(0x3c01);
    expect(halfBits(1 + 2 ** -11)).toBe(0x3c00);
  });
});
