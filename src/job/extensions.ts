/** Extensions in the user's own files: recognisers, samplers, policies, passes. The kind of an export follows from its shape. */
import { existsSync } from "node:fs";
import { register } from "node:module";
import { pathToFileURL } from "node:url";
import { badExtension } from "../words/index.js";
import { assertFile } from "../../ir/open-file.js";
import { isRecogniser, type Recogniser } from "../../ir/recogniser.js";
import { recognisers } from "../../ir/lift/index.js";
import { defaultExport, type Named } from "../../ir/registry.js";
import { guardedPass, guardedPolicy, guardedRecogniser, guardedSampler } from "./guarded.js";
import { isOwnPass, type OwnPass } from "../../passes/pass.js";
import { passes } from "../../passes/index.js";
import { isPolicy, isSampler, policies, type Policy, type Sampler, samplers } from "../../schedules/index.js";

/** The user's own entries in addition to the registries, in the order of the files. */
export interface Extensions {
  readonly recognisers: readonly Recogniser[];
  readonly samplers: readonly Sampler[];
  readonly policies: readonly Policy[];
  readonly passes: readonly OwnPass[];
}

/** Loads the exports of these files. Throws BAD_EXTENSION, NOT_A_FILE. */
export async function loadExtensions(files: readonly string[]): Promise<Extensions> {
  const loaded = await Promise.all(files.map(async (file) => ({ file, entry: await load(file) })));
  const those = <T extends Named>(
    isEntry: (candidate: unknown) => candidate is T,
    known: Iterable<string>,
    namesOf = ({ name }: T): readonly string[] => [name],
  ): readonly T[] => {
    const taken = new Set(known);
    return loaded.flatMap(({ file, entry }) => {
      if (!isEntry(entry)) return [];
      for (const name of namesOf(entry)) {
        if (taken.has(name)) throw badExtension(file, `the name '${name}' is taken`);
        taken.add(name);
      }
      return [entry];
    });
  };
  const classNames = ({ className, aliases = [] }: Sampler): readonly string[] => [className, ...aliases];
  return {
    recognisers: those(isRecogniser, recognisers.keys()),
    samplers: those(isSampler, [...samplers.values()].flatMap(classNames), classNames),
    policies: those(isPolicy, policies.keys()),
    passes: those(isOwnPass, passes.keys()),
  };
}

/** A module hook that resolves a package from this file if it cannot be resolved from the importing file. */
const RESOLVER = `export async function resolve(name, context, next) {
  try {
    return await next(name, context);
  } catch (error) {
    if (/^[./]|^[a-z]+:/.test(name)) throw error;
    return next(name, { ...context, parentURL: ${JSON.stringify(import.meta.url)} }).catch(() => {
      throw error;
    });
  }
}`;
let isResolving = false;

/** Loads a file, which can import `smoothcc/ir` and so on, wherever it is. */
async function load(file: string): Promise<unknown> {
  if (!existsSync(file)) throw badExtension(file, "it is not there");
  assertFile(file);
  if (!isResolving) register(`data:text/javascript,${encodeURIComponent(RESOLVER)}`);
  isResolving = true;
  const entry = await defaultExport(pathToFileURL(file)).catch((error: unknown) => {
    throw badExtension(file, error instanceof Error ? error.message : String(error));
  });
  if (isRecogniser(entry)) return guardedRecogniser(file, entry);
  if (isSampler(entry)) return guardedSampler(file, entry);
  if (isPolicy(entry)) return guardedPolicy(file, entry);
  if (isOwnPass(entry)) return guardedPass(file, entry);
  throw badExtension(file, "its default export is none of what can be added");
}
