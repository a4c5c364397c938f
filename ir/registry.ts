/** Folders as registries: every file of a folder except its index exports one entry as default, whose name is the stem of the file. */
import { readdirSync } from "node:fs";
import { basename, extname } from "node:path";
import { fileURLToPath } from "node:url";

/** A registered thing: the default export of its file. */
export interface Named {
  /** The name of the file, without its extension. */
  readonly name: string;
}

/** Loads the default exports of the files beside `index` (an `import.meta.url`), by name, in alphabetical order. */
export async function loadFolder<T extends Named>(
  index: string,
  isEntry: (candidate: unknown) => candidate is T,
): Promise<ReadonlyMap<string, T>> {
  const folder = new URL("./", index);
  const entries = new Map<string, T>();
  const files = readdirSync(fileURLToPath(folder)).filter((file) => /^[^.]+\.(js|ts)$/.test(file) && !/^index\./.test(file));
  // By stem: with the extension, 'a-b.ts' would come before 'a.ts'.
  const byStem = new Map(files.map((file) => [basename(file, extname(file)), file]));
  for (const [stem, file] of [...byStem].sort(([a], [b]) => (a < b ? -1 : 1))) {
    const entry = await defaultExport(new URL(file, folder));
    if (!isEntry(entry) || entry.name !== stem) throw new Error(`internal: ${file} does not register '${stem}'`);
    entries.set(stem, entry);
  }
  return entries;
}

/** The default export of a module; undefined if it has none. Throws what loading it throws. */
export async function defaultExport(file: URL): Promise<unknown> {
  const module: unknown = await import(file.href);
  return typeof module === "object" && module !== null && "default" in module ? module.default : undefined;
}

/** Whether it is an object with a string `name` and functions under these keys. */
export function hasMethods(candidate: unknown, ...methods: readonly string[]): candidate is Named {
  if (typeof candidate !== "object" || candidate === null || !("name" in candidate) || typeof candidate.name !== "string") return false;
  const fields = new Map<string, unknown>(Object.entries(candidate));
  return methods.every((method) => typeof fields.get(method) === "function");
}
