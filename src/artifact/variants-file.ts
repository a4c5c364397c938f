/** The file that says which artifacts a folder of several has. */
import { existsSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { z } from "zod";
import { parseWith } from "../../schedules/index.js";
import { type FolderKind, jsonText, readJson, readSums, tidy, writeSums } from "../files/index.js";
import { isVariantName } from "../job/index.js";
import { VERSION } from "../words/index.js";

const INDEX = "variants.json";
const FORMAT = "smoothcc-variants/";

/** `512x512`, or with tiers `512x512/fast`. */
const pathSchema = z.string().refine((path) => path.split("/").length <= 2 && path.split("/").every(isVariantName), {
  error: "is no name of a variant",
});

const indexSchema = z.strictObject({ format: z.literal(`${FORMAT}1`), smoothcc: z.string(), variants: z.array(pathSchema).min(1) });

export const ARTIFACTS: FolderKind = { called: "a folder of variants", file: INDEX, text: `"${FORMAT}` };

/** Completes a folder of artifacts: writes which there are, and the digests of all files. */
export async function writeVariants(folder: string, variants: readonly string[]): Promise<void> {
  await writeFile(
    join(folder, INDEX),
    jsonText({ format: `${FORMAT}1`, smoothcc: VERSION, variants: [...variants] } satisfies z.infer<typeof indexSchema>),
  );
  const known = variants.flatMap((name) =>
    [...(readSums(join(folder, name)) ?? [])].map(([path, digest]) => [`${name}/${path}`, digest] as const),
  );
  await writeSums(folder, new Map(known));
}

/** The names of the artifacts that a folder of several has now, as some may have been removed; undefined if it is none. Throws BAD_JSON, BAD_JSON_FIELD. */
export function variantsIn(folder: string): readonly string[] | undefined {
  if (!existsSync(folder)) tidy(resolve(folder));
  const file = join(folder, INDEX);
  if (!existsSync(file)) return undefined;
  return parseWith(indexSchema, readJson(file), file).variants.filter((name) => existsSync(join(folder, name)));
}
