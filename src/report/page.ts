/** The page that all reports are written on: one HTML file that can be opened from disk and loads nothing. */
import type { Bench } from "../artifact/index.js";
import { counted, formatQuantity } from "../words/index.js";
import { type Content, markup, type Markup } from "./html.js";
import { STYLE } from "./style.js";

/** The whole file, of sections in order; those that are undefined are left out. `style`: more rules. */
export function page(title: string, sections: readonly (Markup | undefined)[], style = markup``): string {
  return markup`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>${title}</title>
<style>${STYLE}${style}</style>
</head>
<body>
<main>
${sections.map((one) => markup`${one}\n`)}</main>
</body>
</html>
`.text;
}

export function section(title: string, explanation: Content, ...contents: readonly Content[]): Markup {
  return markup`<section>
<h2>${title}</h2>
${explanation === undefined ? undefined : markup`<p>${explanation}</p>`}
${contents}
</section>`;
}

export function table(columns: readonly string[], body: Markup, foot?: Markup): Markup {
  return markup`<div class="scroll"><table class="data">
<thead><tr>${columns.map((column) => markup`<th scope="col">${column}</th>`)}</tr></thead>
<tbody>${body}
</tbody>${foot && markup`<tfoot>${foot}</tfoot>`}
</table></div>
`;
}

export function facts(rows: readonly (readonly [string, string])[]): Markup {
  return markup`<dl class="facts">${rows.map(
    ([name, value]) => markup`
<div><dt>${name}</dt><dd>${value}</dd></div>`,
  )}
</dl>`;
}

export function quantity(macs: number): string {
  return formatQuantity(macs, "MAC");
}

export function device({ device: name, threads }: Bench): string {
  return threads === null ? `${name}, the runtime's own number of threads` : `${name} with ${counted(threads, "thread")}`;
}

export function sentence(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
