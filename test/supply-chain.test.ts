/** What is installed to run the program: its licences, where it comes from, and the page that says so. */
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { describe, expect, it } from "vitest";
import { z } from "zod";

const ROOT = resolve(import.meta.dirname, "..");
const text = (file: string): string => readFileSync(join(ROOT, file), "utf8");
const packageSchema = z.object({ license: z.string().optional(), integrity: z.string().optional(), dev: z.boolean().optional() });
const { packages } = z.object({ packages: z.record(z.string(), packageSchema) }).parse(JSON.parse(text("package-lock.json")));
const installed = Object.entries(packages).filter(([path]) => path !== "");

/** Licences that ask for no more than their text, and one that asks for changes to the package's own files. */
const LICENCES = ["MIT", "ISC", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "0BSD", "(MIT OR CC0-1.0)", "MIT AND OFL-1.1", "MPL-2.0"];

describe("the supply chain", () => {
  it("has licences that are known to be fine", () => {
    const needed = installed.filter(([, { dev }]) => dev !== true);
    expect(needed.length).toBeGreaterThan(12);
    expect(needed.filter(([, { license = "none" }]) => !LICENCES.includes(license))).toEqual([]);
  });

  it("is pinned by digests", () => {
    expect(installed.filter(([, { integrity }]) => integrity === undefined).map(([path]) => path)).toEqual([]);
  });

  it("runs no scripts of packages", () => {
    expect(text(".npmrc").split("\n")).toContain("ignore-scripts=true");
  });

  it("is written down as the lock file has it: `npm run docs`", () => {
    const printed = execFileSync(process.execPath, [join(ROOT, "docs", "make-supply-chain.js")], { encoding: "utf8" });
    expect(text("docs/supply-chain.md")).toBe(printed);
  });
});
