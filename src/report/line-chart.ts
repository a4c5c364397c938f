/** Line charts over the steps of a run, as SVG; how they look is the document's to say. */
import { markup, type Markup } from "./html.js";
import { ticks } from "./ticks.js";

export interface Point {
  readonly step: number;
  readonly value: number;
  /** How far above and below the value the line's band reaches. */
  readonly margin?: number | undefined;
  /** What pointing at it shows. */
  readonly title?: string;
}

export interface Line {
  /** Class of the path. */
  readonly name: string;
  readonly points: readonly Point[];
}

export interface LineChart {
  readonly title: string;
  readonly description: string;
  /** What the vertical axis measures. */
  readonly measure: string;
  /** Values that get a rule, rising; the first and the last are the ends of the axis. */
  readonly levels: readonly number[];
  readonly steps: number;
  readonly lines: readonly Line[];
  /** A value to compare with, drawn in the class `alpha`. */
  readonly limit?: number | undefined;
}

export const CHART_WIDTH = 400;
export const CHART_HEIGHT = 250;
const LEFT = 40;
const RIGHT = 390;
const TOP = 26;
const BOTTOM = 212;

/** One chart, as an `svg` element of the class `curves` with a view box of CHART_WIDTH × CHART_HEIGHT. */
export function lineChart({ title, description, measure, levels, steps, lines, limit }: LineChart): Markup {
  const last = Math.max(1, steps - 1);
  const low = levels[0] ?? 0;
  const range = (levels.at(-1) ?? 0) - low;
  const x = (step: number): number => round(LEFT + ((RIGHT - LEFT) * step) / last);
  const y = (value: number): number => round(BOTTOM - (range === 0 ? 0 : ((BOTTOM - TOP) * (value - low)) / range));
  const path = (points: readonly Point[]): string => points.map(({ step, value }) => `${x(step)} ${y(value)}`).join("L");
  return markup`
<svg class="curves" viewBox="0 0 ${CHART_WIDTH} ${CHART_HEIGHT}" role="img">
<title>${title}</title>
<desc>${description}</desc>
<g class="axis">${levels.map(
    (level) => markup`<path d="M${LEFT} ${y(level)}H${RIGHT}"/><text x="${LEFT - 6}" y="${y(level) + 4}" text-anchor="end">${level}</text>`,
  )}${ticks(last, 5)
    .filter((step) => Number.isInteger(step) && step <= last)
    .map((step) => markup`<text x="${x(step)}" y="${BOTTOM + 17}" text-anchor="middle">${step}</text>`)}
<text x="0" y="11">${measure}</text><text x="${RIGHT}" y="${CHART_HEIGHT - 4}" text-anchor="end">step</text></g>
${limit === undefined ? undefined : markup`<path class="alpha" d="M${LEFT} ${y(limit)}H${RIGHT}"/>`}
${lines.map(({ points }) => {
  const band = bandOf(points, low);
  return band.length === 0 ? undefined : markup`<path class="band" d="M${path(band)}Z"/>`;
})}
${lines.map(({ name, points }) => (points.length === 0 ? undefined : markup`<path class="${name}" d="M${path(points)}"/>`))}
<g class="points">${lines.flatMap(({ points }) =>
    points.map(({ step, value, title }) =>
      title === undefined ? undefined : markup`<circle cx="${x(step)}" cy="${y(value)}" r="4"><title>${title}</title></circle>`,
    ),
  )}</g>
</svg>`;
}

/** The outline of what lies within the margins: its upper edge forwards, its lower edge backwards, not below `low`. */
function bandOf(points: readonly Point[], low: number): readonly Point[] {
  const edge = (side: 1 | -1): Point[] =>
    points.flatMap(({ step, value, margin }) => (margin === undefined ? [] : [{ step, value: Math.max(low, value + side * margin) }]));
  return [...edge(1), ...edge(-1).reverse()];
}

function round(pixels: number): number {
  return Number(pixels.toFixed(1));
}
