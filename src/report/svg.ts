/** A complete SVG document: a title, a subtitle and a drawing. */
import { type Content, markup } from "./html.js";

/** Margin at the left of the titles, and the height that they take. */
export const GAP = 30;
export const HEADER = 70;

const STYLE = markup`
text { font-family: "Segoe UI", Roboto, "Helvetica Neue", "Liberation Sans", sans-serif; font-size: 11px; fill: #5d646d; }
.title { font-size: 17px; font-weight: 600; fill: #1d2024; }
.axis path { stroke: #dfdfd9; stroke-width: 1px; fill: none; }
`;

export interface SvgDocument {
  /** In pixels. */
  readonly width: number;
  readonly height: number;
  readonly title: string;
  readonly subtitle: string;
  /** Rules for what is drawn. */
  readonly style: Content;
  readonly drawn: Content;
}

export function svgDocument({ width, height, title, subtitle, style, drawn }: SvgDocument): string {
  return `${
    markup`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}">
<style>${STYLE}${style}</style>
<rect width="100%" height="100%" fill="#fdfdfb"/>
<text class="title" x="${GAP}" y="34">${title}</text>
<text x="${GAP}" y="52">${subtitle}</text>
${drawn}</svg>`.text
  }\n`;
}
