/** Texts as terminals and pages may have them: names of others' files can hold what would act on a reader's screen. */

/** What acts instead of being seen: controls, directions of writing and other formats, halves of pairs, breaks of lines and paragraphs. */
const UNSEEN = /[\p{Cc}\p{Cf}\p{Cs}\u2028\u2029]/gu;

/** The text of a page, with line feeds and tabs; everything else that acts is escaped as in JSON, so that JSON stays what it says. */
export function printable(page: string): string {
  return page.replaceAll(UNSEEN, (found) => (found === "\n" || found === "\t" ? found : escaped(found)));
}

/** The same for a text that has one line, as a name and a message have. */
export function oneLine(text: string): string {
  return text.replaceAll(UNSEEN, escaped);
}

function escaped(found: string): string {
  return Array.from({ length: found.length }, (_, i) => `\\u${found.charCodeAt(i).toString(16).padStart(4, "0")}`).join("");
}
