/** The house rules of the import statements: who may import whom, which folder and which package has which door, and no circles. */
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";
import { describe, expect, it } from "vitest";

const ROOT = resolve(import.meta.dirname, "..");

/** The top folders; each may import those before it. */
const FOLDERS = ["ir", "schedules", "passes", "src"];

/** The stages of `src/`: each may import those before it, through their doors. The files beside them stand on top, below `cli/`. */
const STAGES = [
  ...["words", "files", "runtime", "job", "reference", "calibration", "compile", "planning", "artifact", "report"],
  ...["(top)", "cli"],
];

/** Folders of registered things; each has its contract beside it, an index as its only door, and nothing else but these things. */
const REGISTRIES = new Map([
  ["ir/lift", "ir/recogniser.ts"],
  ["schedules/samplers", "schedules/sampler.ts"],
  ["schedules/policies", "schedules/policy.ts"],
  ["schedules/formats", "schedules/format.ts"],
  ["passes/fuse", "passes/fuse-rule.ts"],
  ["passes/forms", "passes/form.ts"],
  ["src/job/pipelines", "src/job/pipeline.ts"],
  ["src/cli/commands", "src/cli/command.ts"],
]);

/** The only places that may import a package. Node's own modules are free. */
const PACKAGES = new Map([
  ["protobufjs", /^ir\/onnx\//],
  ["long", /^ir\/onnx\//],
  ["zod", /^(schedules|src)\//],
  ["ml-matrix", /^schedules\/planning\/least-squares\.ts$/],
  ["onnxruntime-node", /^src\/runtime\//],
  ["commander", /^src\/cli\/cli\.ts$/],
  ["cli-progress", /^src\/cli\/progress\.ts$/],
  ["fast-png", /^src\/report\/picture\.ts$/],
  ["fflate", /^src\/files\/zip\.ts$/],
  ["@resvg", /^src\/report\/raster\.ts$/],
]);

interface Import {
  readonly from: string;
  readonly to: string;
}

function sources(folder: string): string[] {
  return readdirSync(join(ROOT, folder), { recursive: true, encoding: "utf8" })
    .filter((file) => file.endsWith(".ts"))
    .map((file) => join(folder, file));
}

function importsOf(file: string): Import[] {
  const text = readFileSync(join(ROOT, file), "utf8");
  const found = text.matchAll(/^(?:import|export)\s+(?:type\s+)?(?:[^"';]*?\sfrom\s+)?"([^"]+)";/gm);
  return [...found].map(([, to = ""]) => ({
    from: file,
    to: to.startsWith(".") ? relative(ROOT, resolve(ROOT, dirname(file), to)).replace(/\.js$/, ".ts") : to,
  }));
}

const files = FOLDERS.flatMap(sources);
const imports = files.flatMap(importsOf);
const isLocal = ({ to }: Import): boolean => to.endsWith(".ts");
const local = imports.filter(isLocal);

function stageOf(file: string): string | undefined {
  const [top, stage = "", ...inside] = file.split("/");
  return top !== "src" ? undefined : inside.length > 0 ? stage : "(top)";
}

describe("boundaries", () => {
  it("finds the imports that it judges", () => {
    expect(files.length).toBeGreaterThan(30);
    expect(imports.length).toBeGreaterThan(100);
  });

  it("lets folders import only what is before them", () => {
    const rank = (file: string): number => FOLDERS.indexOf(file.split("/")[0] ?? "");
    expect(local.filter(({ from, to }) => rank(to) > rank(from))).toEqual([]);
  });

  it("lets stages import only what is before them", () => {
    expect([...new Set(files.flatMap((file) => stageOf(file) ?? []))].sort()).toEqual([...STAGES].sort());
    const rank = (file: string): number => STAGES.indexOf(stageOf(file) ?? "");
    expect(local.filter(({ from, to }) => stageOf(from) !== undefined && rank(to) > rank(from))).toEqual([]);
  });

  it("enters a stage by its door alone", () => {
    const wrong = local.filter(({ from, to }) => {
      const stage = stageOf(to);
      return stage !== undefined && stage !== "(top)" && stageOf(from) !== stage && to !== `src/${stage}/index.ts`;
    });
    expect(wrong).toEqual([]);
  });

  it("enters schedules/ by its door alone, but for what its problems are", () => {
    const doors = ["schedules/index.ts", "schedules/diagnostics.ts"];
    expect(local.filter(({ from, to }) => /^schedules\//.test(to) && !/^schedules\//.test(from) && !doors.includes(to))).toEqual([]);
  });

  it("keeps the oracle apart from what it judges", () => {
    expect(local.filter(({ from, to }) => stageOf(from) === "reference" && /^(passes|src\/compile)\//.test(to))).toEqual([]);
  });

  it("has in a folder of registered things only these, and a door", () => {
    for (const [folder, contract] of REGISTRIES) {
      const entries = sources(folder).filter((file) => file !== `${folder}/index.ts`);
      expect(entries.length).toBeGreaterThan(1);
      for (const entry of entries) {
        const text = readFileSync(join(ROOT, entry), "utf8");
        expect(local, `${entry} knows what it is`).toContainEqual({ from: entry, to: contract });
        expect(text, entry).toMatch(/^export default /m);
        expect(text.match(/^export (?!default)/gm), `${entry} gives nothing else`).toBeNull();
      }
      const others = local.filter(({ from, to }) => entries.includes(to) && !from.startsWith(`${folder}/`));
      expect(others, `${folder} is entered by its door`).toEqual([]);
    }
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

  it("has no circles, those of types included", () => {
    expect(circleIn(local)).toBeUndefined();
    const ring = [["a", "b"], ["b", "c"], ["c", "b"]].map(([from = "", to = ""]) => ({ from, to })); // prettier-ignore
    expect(circleIn(ring)).toEqual(["b", "c", "b"]);
  });

  it("has no circles between folders below the top", () => {
    const folderOf = (file: string): string => file.split("/").slice(0, 2).join("/").replace(/\/[^/]*\.ts$/, ""); // prettier-ignore
    const between = local.map(({ from, to }) => ({ from: folderOf(from), to: folderOf(to) })).filter(({ from, to }) => from !== to);
    // What stands in a top folder beside its folders is on several floors.
    expect(circleIn(between.filter(({ from, to }) => from.includes("/") && to.includes("/")))).toBeUndefined();
  });
});

/** A circle, as the files that one passes from the first back to it; nothing if there are none. */
function circleIn(edges: readonly Import[]): readonly string[] | undefined {
  const targets = new Map<string, string[]>();
  for (const { from, to } of edges) targets.set(from, [...(targets.get(from) ?? []), to]);
  const done = new Set<string>();
  const circle = (file: string, path: readonly string[]): readonly string[] | undefined => {
    if (path.includes(file)) return [...path.slice(path.indexOf(file)), file];
    if (done.has(file)) return undefined;
    for (const next of targets.get(file) ?? []) {
      const found = circle(next, [...path, file]);
      if (found) return found;
    }
    done.add(file);
    return undefined;
  };
  return [...targets.keys()].map((file) => circle(file, [])).find((found) => found !== undefined);
}
