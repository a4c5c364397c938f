/** Checks JSON from outside against a schema. */
import { z } from "zod";
import { badJsonField } from "./diagnostics.js";
import { nearest } from "../ir/diagnostics.js";

/** The parsed value. Throws BAD_JSON_FIELD for an unknown key, with the nearest known one, else for the first problem. */
export function parseWith<S extends z.ZodType>(schema: S, value: unknown, source: string): z.output<S> {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const { issues } = result.error;
  // A misspelled key often also leaves a required key missing; the unknown key is the better message.
  const issue = issues.find(({ code }) => code === "unrecognized_keys") ?? issues[0];
  const path = issue?.path.map(String) ?? [];
  if (issue?.code === "unrecognized_keys") {
    const [key = ""] = issue.keys;
    throw badJsonField(source, [...path, key].join("."), "is not a known key", nearest(key, keysAt(schema, path)));
  }
  throw badJsonField(source, path.join(".") || "(the whole)", `cannot be used: ${issue?.message ?? "it is not valid"}`);
}

/** The keys that a schema knows at a path. */
function keysAt(schema: unknown, path: readonly string[]): readonly string[] {
  const [key, ...rest] = path;
  if (
    schema instanceof z.ZodOptional ||
    schema instanceof z.ZodDefault ||
    schema instanceof z.ZodPrefault ||
    schema instanceof z.ZodNullable
  )
    return keysAt(schema.unwrap(), path);
  if (schema instanceof z.ZodRecord) return keysAt(schema.valueType, rest);
  if (!(schema instanceof z.ZodObject)) return [];
  return key === undefined ? Object.keys(schema.shape) : keysAt(schema.shape[key], rest);
}
