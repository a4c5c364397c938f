/** Reading JSON: what JSON.parse reads comes out alike, and what would be read wrongly, or at great cost, is refused. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { JSON_DEPTH } from "../ir/limits.js";
import { parseJson } from "../src/files/json.js";
import { codeOf, thrownBy } from "./support/thrown.js";

const parsed = (text: string): unknown => parseJson(text, "a.json");
const problem = (text: string): string | undefined => thrownBy(() => parsed(text))?.message;

describe("reading JSON", () => {
  it("gives what JSON.parse gives, in any layout", () => {
    fc.assert(
      fc.property(fc.jsonValue({ maxDepth: 5 }), fc.nat(3), (value, indent) => {
        const text = JSON.stringify(value, undefined, indent);
        fc.pre(!text.includes('"__proto__"'));
        expect(parsed(text)).toEqual(JSON.parse(text));
      }),
      { seed: 1 },
    );
  });

  it("answers any text as JSON.parse does, or with a diagnostic", () => {
    const token = fc.constantFrom(
      "{",
      "}",
      "[",
      "]",
      ":",
      ",",
      '"',
      "\\",
      '"a"',
      '"b\\"',
      "1",
      "null",
      "NaN",
      "-Infinity",
      " ",
      "\n",
      "\\u0061",
      "é",
    );
    fc.assert(
      fc.property(fc.array(token, { maxLength: 14 }), (tokens) => {
        expect([undefined, "BAD_JSON"]).toContain(codeOf(() => parsed(tokens.join(""))));
      }),
      { seed: 1, numRuns: 1500 },
    );
  });

  it("reads Python's bare tokens as strings, and leaves those in strings alone", () => {
    expect(parsed('\uFEFF{"a": [-Infinity, Infinity, NaN], "NaN": "\\"Infinity: NaN\\\\"}')).toEqual({
      a: ["-Infinity", "Infinity", "NaN"],
      NaN: '"Infinity: NaN\\',
    });
  });

  it("refuses a key that comes twice, however it is written, and says which and where", () => {
    expect(problem('{\n"steps": 4,\n"a": {"steps": 1},\n"ste\\u0070s": 5}')).toContain(
      "'steps' comes twice in one object, for the second time on line 4",
    );
    expect(parsed('[{"a": 1}, {"a": 2, "b": {"a": ["a", "a"]}}]')).toEqual([{ a: 1 }, { a: 2, b: { a: ["a", "a"] } }]);
  });

  it.each(['{"__proto__": 1}', '{"\\u005f_proto__": [1]}', '{"a": {"__pr\\u006fto__" : 1}}'])("refuses %s", (text) => {
    expect(problem(text)).toContain("'__proto__'");
    expect(parsed(text.replace("__", "--").replace("\\u005f_", "--"))).toBeTypeOf("object");
  });

  it("has an end to its depth", () => {
    const nested = (depth: number): string => "[".repeat(depth) + "]".repeat(depth);
    expect(codeOf(() => parsed(nested(JSON_DEPTH)))).toBeUndefined();
    expect(problem(nested(JSON_DEPTH + 1))).toContain("deep in one another");
    expect(problem(nested(1e5))).toContain("deep in one another");
    expect(problem('{"a":'.repeat(1e5))).toContain("deep in one another");
  });

  it.each([
    ["a long string", JSON.stringify("x".repeat(12e6))],
    ["a string of quotes", JSON.stringify('"'.repeat(2e6))],
    ["a string of backslashes", JSON.stringify("\\".repeat(2e6))],
    ["many keys", `{${Array.from({ length: 1e5 }, (_, i) => `"k${i}":${i}`).join()}}`],
    ["many bare tokens", `[${new Array(3e5).fill("NaN").join()}]`],
    ["a string without an end", `"${'\\"'.repeat(2e6)}`],
  ])("reads %s in time that is linear in its length", (_, text) => {
    const start = performance.now();
    expect([undefined, "BAD_JSON"]).toContain(codeOf(() => parsed(text)));
    expect(performance.now() - start).toBeLessThan(5000);
  });
});
