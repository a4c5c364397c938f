/**
 * Every `test/cases/passes/<pass>/<case>.txt` is a test: a graph, a line `---`, and what the pass makes of the graph, or `error CODE`.
 * `BLESS=1 npx vitest run test/cases.test.ts` writes what the passes make into the files: read the difference before it is committed.
 * Lines `# word: …` before the graph are the facts of the compilation that the pass is told; `pass-case.ts` has the words.
 */
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { check } from "../ir/check.js";
import { CompilerError } from "../ir/diagnostics.js";
import type { Model } from "../ir/graph.js";
import { print } from "../ir/print.js";
import { passes } from "../passes/index.js";
import { type PassContext, runPasses } from "../passes/pass.js";
import { readSubject } from "./support/pass-case.js";

type RunPass = (name: string, model: Model, context: PassContext) => Promise<Model>;

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
  const { model, context } = readSubject(given);
  expect(check(model)).toEqual([]);
  try {
    const after = await runPass(pass, model, context);
    expect(check(after)).toEqual([]);
    return print(after);
  } catch (error) {
    if (error instanceof CompilerError) return `error ${error.code}`;
    throw error;
  }
}

const runPass: RunPass = (name, model, context) => {
  const pass = passes.get(name);
  if (!pass) throw new Error(`there is no pass '${name}'`);
  return runPasses(model, [pass], context);
};

const folders = readdirSync(CASES).sort();

for (const folder of folders) {
  describe(folder, () => {
    for (const file of readdirSync(new URL(`${folder}/`, CASES)).sort()) {
      it(file, async () => {
        const path = new URL(`${folder}/${file}`, CASES);
        const text = readFileSync(path, "utf8");
        const found = readCase(text);
        const actual = await outcome(found, folder, runPass);
        if (process.env.BLESS !== "1") expect(actual).toBe(found.expected);
        else if (actual !== found.expected) writeFileSync(path, `${found.given}${LINE}${actual}\n`);
      });
    }
  });
}

describe("the runner", () => {
  const text = readFileSync(new URL("dce/drops-dead-nodes.txt", CASES), "utf8");

  it("has cases for every pass", () => {
    expect(folders).toEqual([...passes.keys()].sort());
  });

  it("tells a pass that does nothing from one that works", async () => {
    const found = readCase(text);
    expect(await outcome(found, "dce", (_, model) => Promise.resolve(model))).not.toBe(found.expected);
  });

  it("refuses a folder that names no pass, a file without its line, and an unknown word", async () => {
    await expect(outcome(readCase(text), "no-such-pass", runPass)).rejects.toThrow("no-such-pass");
    expect(() => readCase("g () => () {}")).toThrow("---");
    await expect(outcome(readCase(`# batsh: 2\n${text}`), "dce", runPass)).rejects.toThrow("batsh");
  });
});
