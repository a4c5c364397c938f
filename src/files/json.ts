/** Reading and writing JSON. */
import { badJson } from "../words/index.js";
import { JSON_BYTES, JSON_DEPTH } from "../../ir/limits.js";
import { readFile } from "../../ir/open-file.js";

/**
 * The JSON value in a file of at most `limit` bytes. The bare tokens -Infinity, Infinity and NaN, which Python writes, are read as strings;
 * the mark that some editors put in front of UTF-8 is skipped. Keys that come twice, which readers understand differently, are refused.
 * Throws FILE_MISSING, NOT_A_FILE, FILE_TOO_LARGE, BAD_JSON.
 */
export function readJson(file: string, limit = JSON_BYTES): unknown {
  return parseJson(readFile(file, limit).toString("utf8"), file);
}

/** The value of a JSON text, read as that of `file`. Throws BAD_JSON. */
export function parseJson(text: string, file: string): unknown {
  try {
    const value: unknown = JSON.parse(checked(text.replace(/^\uFEFF/, ""), file));
    return value;
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    // The message quotes the text, which may contain anything.
    throw badJson(file, error.message.replaceAll(/[\s\p{Cc}\uFFFD]+/gu, " "));
  }
}

/** What a text is looked through for; strings are stepped over. */
const TOKEN = /["{}[\]:]|-?Infinity|NaN/g;

/** The text with quotes around bare tokens. Looks at depth and keys, and leaves the rest to JSON.parse. Linear in the text. */
function checked(text: string, file: string): string {
  /** The keys of the objects that are open; a list has none. */
  const open: (Set<string> | undefined)[] = [];
  const parts: string[] = [];
  let [kept, stringAt, stringEnd] = [0, 0, 0];
  for (let at = 0; ;) {
    TOKEN.lastIndex = at;
    const found = TOKEN.exec(text);
    if (!found) break;
    const [token] = found;
    at = found.index + token.length;
    if (token === '"') {
      stringAt = found.index;
      stringEnd = at = endOfString(text, at);
    } else if (token === "{" || token === "[") {
      open.push(token === "{" ? new Set() : undefined);
      if (open.length > JSON_DEPTH) throw badJson(file, `lists and objects are more than ${JSON_DEPTH} deep in one another.`);
    } else if (token === "}" || token === "]") open.pop();
    else if (token === ":") {
      const keys = open.at(-1);
      const key = keyOf(text.slice(stringAt, stringEnd));
      if (!keys || key === undefined) continue;
      // Parsed records would silently drop this key.
      if (key === "__proto__") throw badJson(file, "the key '__proto__' is not taken.");
      if (keys.has(key))
        throw badJson(file, `'${key.slice(0, 80)}' comes twice in one object, for the second time on line ${lineAt(text, stringAt)}.`);
      keys.add(key);
    } else {
      parts.push(text.slice(kept, found.index), `"${token}"`);
      kept = at;
    }
  }
  return kept === 0 ? text : [...parts, text.slice(kept)].join("");
}

/** The offset behind the closing quote of a string whose text begins at `from`; that of the end of the text if there is none. */
function endOfString(text: string, from: number): number {
  for (let at = text.indexOf('"', from); at >= 0; at = text.indexOf('"', at + 1)) {
    let slashes = 0;
    while (at - 1 - slashes >= from && text[at - 1 - slashes] === "\\") slashes++;
    if (slashes % 2 === 0) return at + 1;
  }
  return text.length;
}

/** What a string says; undefined if it is none. */
function keyOf(written: string): string | undefined {
  if (!written.includes("\\")) return written.slice(1, -1);
  const key: unknown = JSON.parse(written);
  return typeof key === "string" ? key : undefined;
}

function lineAt(text: string, at: number): number {
  return text.slice(0, at).split("\n").length;
}

/** JSON with stable formatting and a newline at its end. */
export function jsonText(value: unknown): string {
  return `${JSON.stringify(value, undefined, 1)}\n`;
}
