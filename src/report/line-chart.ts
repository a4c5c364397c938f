/** Line charts as SVG. The document that contains them sets their style. */
import { markup, type Markup } from "./html.js";
import { ticks } from "./ticks.js";

export interface Point {
  readonly x: number;
  readonly y: number;
  /** How far above and below y the line's band reaches. */
  readonly margin?: number | undefined;
  /** The tooltip of the point. */
  readonly title?: string;
}

export interface Line {
  /** Class of the path, and of its points. */
  readonly name: string;
  readonly points: readonly Point[];
}

export interface Axis {
  /** What it measures. */
  readonly measure: string;
  /** Values that are marked, rising; the first and the last are the ends of the axis unless `ends` says otherwise. */
  readonly levels: readonly number[];
  readonly ends?: readonly [number, number];
  /** Whether the axis is logarithmic: equal distances are equal ratios. */
  readonly isLogarithmic?: boolean;
}

export interface LineChart {
  readonly title: string;
  readonly description: string;
  readonly x: Axis;
  /** Its levels get rules. */
  readonly y: Axis;
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

/** The steps of a run. */
export function stepAxis(steps: number): Axis {
  const last = Math.max(1, steps - 1);
  const levels = ticks(last, 5).filter((step) => Number.isInteger(step) && step <= last);
  return { measure: "step", levels, ends: [0, last] };
}

/** One chart, as an `svg` element of the class `curves` with a view box of CHART_WIDTH × CHART_HEIGHT. */
export function lineChart({ title, description, x: across, y: up, lines, limit }: LineChart): Markup {
  const x = scale(across, LEFT, RIGHT);
  const y = scale(up, BOTTOM, TOP);
  const path = (points: readonly Point[]): string => points.map((point) => `${x(point.x)} ${y(point.y)}`).join("L");
  return markup`
<svg class="curves" viewBox="0 0 ${CHART_WIDTH} ${CHART_HEIGHT}" role="img">
<title>${title}</title>
<desc>${description}</desc>
<g class="axis">${up.levels.map(
    (level) => markup`<path d="M${LEFT} ${y(level)}H${RIGHT}"/><text x="${LEFT - 6}" y="${y(level) + 4}" text-anchor="end">${level}</text>`,
  )}${across.levels.map((level) => markup`<text x="${x(level)}" y="${BOTTOM + 17}" text-anchor="middle">${level}</text>`)}
<text x="0" y="11">${up.measure}</text><text x="${RIGHT}" y="${CHART_HEIGHT - 4}" text-anchor="end">${across.measure}</text></g>
${limit === undefined ? undefined : markup`<path class="alpha" d="M${LEFT} ${y(limit)}H${RIGHT}"/>`}
${lines.map(({ points }) => {
  const band = bandOf(points, endsOf(up)[0]);
  return band.length === 0 ? undefined : markup`<path class="band" d="M${path(band)}Z"/>`;
})}
${lines.map(({ name, points }) => (points.length === 0 ? undefined : markup`<path class="${name}" d="M${path(points)}"/>`))}
${lines.map(
  ({ name, points }) =>
    markup`<g class="points ${name}">${points.map(({ title, ...point }) =>
      title === undefined ? undefined : markup`<circle cx="${x(point.x)}" cy="${y(point.y)}" r="4"><title>${title}</title></circle>`,
    )}</g>`,
)}
</svg>`;
}

/** From a value on the axis to its place between two edges. */
function scale(axis: Axis, start: number, end: number): (value: number) => number {
  const measure = axis.isLogarithmic === true ? Math.log : Number;
  const [low, high] = endsOf(axis).map(measure);
  const from = low ?? 0;
  const range = (high ?? 0) - from;
  return (value) => round(range === 0 ? start : start + ((end - start) * (measure(value) - from)) / range);
}

function endsOf({ levels, ends }: Axis): readonly [number, number] {
  return ends ?? [levels[0] ?? 0, levels.at(-1) ?? 0];
}

/** The outline of the band around a line: its upper edge forwards, then its lower edge backwards, not below `low`. */
function bandOf(points: readonly Point[], low: number): readonly Point[] {
  const edge = (side: 1 | -1): Point[] =>
    points.flatMap(({ x, y, margin }) => (margin === undefined ? [] : [{ x, y: Math.max(low, y + side * margin) }]));
  return [...edge(1), ...edge(-1).reverse()];
}

function round(pixels: number): number {
  return Number(pixels.toFixed(1));
}
