/** Folder → registry: every file of a folder but its index is one registered thing, exported as default under the file's stem. */
import { readdirSync } from "node:fs";
import { basename, extname } from "node:path";
import { fileURLToPath } from "node:url";

export interface Named {
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
    const entry = await loadFile(new URL(file, folder), isEntry);
    if (entry.name !== stem) throw new Error(`internal: ${file} registers '${entry.name}'`);
    entries.set(stem, entry);
  }
  return entries;
}

/** The default export of one module, which must be an entry. */
export async function loadFile<T extends Named>(file: URL, isEntry: (candidate: unknown) => candidate is T): Promise<T> {
  const module: unknown = await import(file.href);
  const entry: unknown = typeof module === "object" && module !== null && "default" in module ? module.default : undefined;
  if (!isEntry(entry)) throw new Error(`${fileURLToPath(file)} has no fitting default export`);
  return entry;
}

/** Whether it is an object with a string `name` and functions under these keys. */
export function hasMethods(candidate: unknown, ...methods: readonly string[]): candidate is Named {
  if (typeof candidate !== "object" || candidate === null || !("name" in candidate) || typeof candidate.name !== "string") return false;
  const fields = new Map<string, unknown>(Object.entries(candidate));
  return methods.every((method) => typeof fields.get(method) === "function");
}
