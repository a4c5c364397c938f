/**
 * Every `test/cases/passes/<pass>/<case>.txt` is a test: a graph, a line `---`, and what the pass makes of the graph.
 * `BLESS=1 npx vitest run test/cases.test.ts` writes what the passes make into the files: read the difference before it is committed.
 */
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { check } from "../ir/check.js";
import type { Model } from "../ir/graph.js";
import { sweep } from "../ir/rewrite.js";
import { parse, print } from "../ir/text.js";

type RunPass = (name: string, model: Model) => Model | Promise<Model>;

const CASES = new URL("cases/passes/", import.meta.url);
const LINE = "\n---\n";

interface Case {
  readonly given: string;
  readonly expected: string;
}

function readCase(text: string): Case {
  const [given, expected, ...rest] = text.split(LINE);
  if (given === undefined || expected === undefined || rest.length > 0) throw new Error("a case has one line '---'");
  return { given, expected: expected.trimEnd() };
}

/** What the pass makes of the case, as text; both graphs must be well-formed. */
async function outcome({ given }: Case, pass: string, runPass: RunPass): Promise<string> {
  const before = parse(given);
  expect(check(before)).toEqual([]);
  const after = await runPass(pass, before);
  expect(check(after)).toEqual([]);
  return print(after);
}

const runPass: RunPass = (name, model) => {
  if (name !== "dce") throw new Error(`there is no pass '${name}'`);
  return { ...model, graph: sweep(model.graph) };
};

for (const folder of readdirSync(CASES).sort()) {
  describe(folder, () => {
    for (const file of readdirSync(new URL(`${folder}/`, CASES)).sort()) {
      it(file, async () => {
        const path = new URL(`${folder}/${file}`, CASES);
        const found = readCase(readFileSync(path, "utf8"));
        const actual = await outcome(found, folder, runPass);
        if (process.env.BLESS === "1") writeFileSync(path, `${found.given}${LINE}${actual}\n`);
        else expect(actual).toBe(found.expected);
      });
    }
  });
}

describe("the runner", () => {
  const text = readFileSync(new URL("dce/drops-dead-nodes.txt", CASES), "utf8");

  it("tells a pass that does nothing from one that works", async () => {
    const found = readCase(text);
    expect(await outcome(found, "dce", (_, model) => model)).not.toBe(found.expected);
  });

  it("refuses a folder that names no pass, and a file without its line", async () => {
    await expect(outcome(readCase(text), "no-such-pass", runPass)).rejects.toThrow("no-such-pass");
    expect(() => readCase("g () => () {}")).toThrow("---");
  });
});
