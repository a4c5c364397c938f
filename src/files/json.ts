/** Reading and writing JSON. */
import { badJson } from "../words/index.js";
import { readBytes } from "./disk.js";

/**
 * The JSON value in a file. The bare tokens -Infinity, Infinity and NaN, which Python writes, are read as strings;
 * the mark that some editors put in front of UTF-8 is skipped.
 * Throws FILE_MISSING, BAD_JSON.
 */
export function readJson(file: string): unknown {
  const text = readBytes(file)
    .toString("utf8")
    .replace(/^\uFEFF/, "");
  // Parsed records would silently drop this key.
  if (/"__proto__"\s*:/.test(text)) throw badJson(file, "the key '__proto__' is not taken.");
  try {
    const value: unknown = JSON.parse(
      text.replaceAll(/"(?:[^"\\]|\\.)*"|-?Infinity|NaN/g, (token) => (token.startsWith('"') ? token : `"${token}"`)),
    );
    return value;
  } catch (error) {
    // The message quotes the text, which may contain anything.
    throw badJson(file, (error instanceof Error ? error.message : String(error)).replaceAll(/[\s\p{Cc}\uFFFD]+/gu, " "));
  }
}

/** JSON with stable formatting and a newline at its end. */
export function jsonText(value: unknown): string {
  return `${JSON.stringify(value, undefined, 1)}\n`;
}
