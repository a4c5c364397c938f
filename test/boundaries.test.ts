/** The house rules of the import statements: who may import whom, which package has which single door, and no cycles. */
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";
import { describe, expect, it } from "vitest";

const ROOT = resolve(import.meta.dirname, "..");

/** What each folder may import besides itself. */
const FOLDERS = new Map([
  ["ir", []],
  ["schedules", ["ir"]],
  ["passes", ["ir", "schedules"]],
  ["src", ["ir", "schedules", "passes"]],
]);

/** The only places that may import a package. Node's own modules are free. */
const PACKAGES = new Map([
  ["protobufjs", /^ir\/onnx\//],
  ["long", /^ir\/onnx\//],
  ["zod", /^(schedules|src)\//],
  ["ml-matrix", /^schedules\/planning\/least-squares\.ts$/],
  ["onnxruntime-node", /^src\/runtime\.ts$/],
  ["commander", /^src\/cli\.ts$/],
  ["cli-progress", /^src\/progress\.ts$/],
  ["fast-png", /^src\/picture\.ts$/],
  ["fflate", /^src\/zip\.ts$/],
  ["@resvg", /^src\/raster\.ts$/],
  ["pickleparser", /^src\/torch-file\.ts$/],
]);

interface Import {
  readonly from: string;
  readonly to: string;
  readonly typeOnly: boolean;
}

function sources(folder: string): string[] {
  return readdirSync(join(ROOT, folder), { recursive: true, encoding: "utf8" })
    .filter((file) => file.endsWith(".ts"))
    .map((file) => join(folder, file));
}

function importsOf(file: string): Import[] {
  const text = readFileSync(join(ROOT, file), "utf8");
  const found = text.matchAll(/^(?:import|export)\s+(type\s+)?(?:[^"';]*?\sfrom\s+)?"([^"]+)";/gm);
  return [...found].map(([, type, to = ""]) => {
    const target = to.startsWith(".") ? relative(ROOT, resolve(ROOT, dirname(file), to)).replace(/\.js$/, ".ts") : to;
    return { from: file, to: target, typeOnly: type !== undefined };
  });
}

const files = [...FOLDERS.keys()].flatMap(sources);
const imports = files.flatMap(importsOf);
const isLocal = ({ to }: Import): boolean => to.endsWith(".ts");

describe("boundaries", () => {
  it("finds the imports that it judges", () => {
    expect(files.length).toBeGreaterThan(30);
    expect(imports.length).toBeGreaterThan(100);
  });

  it("lets folders import only what is below them", () => {
    const wrong = imports.filter(isLocal).filter(({ from, to }) => {
      const [home = ""] = from.split("/");
      const [other = ""] = to.split("/");
      return home !== other && !(FOLDERS.get(home) ?? []).some((folder) => folder === other);
    });
    expect(wrong).toEqual([]);
  });

  it("keeps each package behind its door", () => {
    const wrong = imports
      .filter((entry) => !isLocal(entry) && !entry.to.startsWith("node:"))
      .filter(({ from, to }) => !PACKAGES.get(to.split("/")[0] ?? "")?.test(from));
    expect(wrong).toEqual([]);
  });

  it("has no drawers", () => {
    expect(files.filter((file) => /(utils|helpers|misc|common)(\/|\.ts$)/.test(file))).toEqual([]);
  });

  it("has no import cycles", () => {
    const edges = new Map<string, string[]>();
    for (const { from, to } of imports.filter(isLocal).filter(({ typeOnly }) => !typeOnly))
      edges.set(from, [...(edges.get(from) ?? []), to]);
    const done = new Set<string>();
    const cycle = (file: string, path: readonly string[]): readonly string[] | undefined => {
      if (path.includes(file)) return [...path.slice(path.indexOf(file)), file];
      if (done.has(file)) return undefined;
      for (const next of edges.get(file) ?? []) {
        const found = cycle(next, [...path, file]);
        if (found) return found;
      }
      done.add(file);
      return undefined;
    };
    expect(files.map((file) => cycle(file, [])).find((found) => found !== undefined)).toBeUndefined();
  });
});
