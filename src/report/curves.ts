/** Error curves as line charts: how much the branches of a kind change against an earlier step, step by step. */
import { formatNumber } from "./format.js";
import { markup, type Markup } from "./html.js";
import { ticks } from "./ticks.js";

/** [lag − 1][step], as in ReportData. */
export type Curves = readonly (readonly number[])[];

/** Lags that are drawn. */
const LAGS = 3;

const WIDTH = 400;
const HEIGHT = 250;
const LEFT = 40;
const RIGHT = 390;
const TOP = 26;
const BOTTOM = 212;

interface Point {
  readonly step: number;
  readonly change: number;
}

/** One chart a kind, all with the same scales, with a legend of the lags; undefined where there is nothing to draw. */
export function curveCharts(curves: ReadonlyMap<string, Curves>, steps: number, alpha?: number): Markup | undefined {
  const kinds = [...curves].map(([kind, lags]) => ({ kind, lines: lags.slice(0, LAGS).map((line, i) => points(line, i + 1, steps)) }));
  const changes = kinds.flatMap(({ lines }) => lines.flat().map(({ change }) => change));
  if (changes.length === 0) return undefined;
  const largest = changes.reduce((a, b) => Math.max(a, b), alpha ?? 0);
  const drawn = Math.max(...kinds.map(({ lines }) => lines.length));
  return markup`<ul class="legend">${Array.from(
    { length: drawn },
    (_, i) => markup`
<li><svg width="28" height="10" aria-hidden="true"><path class="lag-${i + 1}" d="M0 5H28"/></svg>${
      i === 0 ? "since the step before" : `since ${i + 1} steps before`
    }</li>`,
  )}${
    alpha === undefined
      ? undefined
      : markup`
<li><svg width="28" height="10" aria-hidden="true"><path class="alpha" d="M0 5H28"/></svg>threshold α = ${formatNumber(alpha)}</li>`
  }
</ul>
<div class="charts">${kinds.map(({ kind, lines }) => chart(kind, lines, ticks(largest, 5), steps, alpha))}
</div>`;
}

function points(line: readonly number[], lag: number, steps: number): readonly Point[] {
  return line.slice(0, steps).flatMap((change, step) => (step >= lag && Number.isFinite(change) ? [{ step, change }] : []));
}

function chart(kind: string, lines: readonly (readonly Point[])[], levels: readonly number[], steps: number, alpha?: number): Markup {
  const last = Math.max(1, steps - 1);
  const top = levels.at(-1) ?? 0;
  const x = (step: number): number => round(LEFT + ((RIGHT - LEFT) * step) / last);
  const y = (change: number): number => round(BOTTOM - (top === 0 ? 0 : ((BOTTOM - TOP) * change) / top));
  const highest = lines.flat().reduce<Point>((best, point) => (point.change > best.change ? point : best), { step: 0, change: 0 });
  return markup`
<figure><figcaption>${kind}</figcaption>
<svg class="curves" viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img">
<title>${kind}: relative L1 change by step</title>
<desc>Lines for changes over 1 to ${lines.length} steps; the largest is ${formatNumber(highest.change)} at step ${highest.step}.</desc>
<g class="axis">${levels.map(
    (level) => markup`<path d="M${LEFT} ${y(level)}H${RIGHT}"/><text x="${LEFT - 6}" y="${y(level) + 4}" text-anchor="end">${level}</text>`,
  )}${ticks(last, 5)
    .filter((step) => Number.isInteger(step) && step <= last)
    .map((step) => markup`<text x="${x(step)}" y="${BOTTOM + 17}" text-anchor="middle">${step}</text>`)}
<text x="0" y="11">relative L1 change</text><text x="${RIGHT}" y="${HEIGHT - 4}" text-anchor="end">step</text></g>
${alpha === undefined ? undefined : markup`<path class="alpha" d="M${LEFT} ${y(alpha)}H${RIGHT}"/>`}
${lines.map((line, i) => (line.length === 0 ? undefined : markup`<path class="lag-${i + 1}" d="M${line.map(({ step, change }) => `${x(step)} ${y(change)}`).join("L")}"/>`))}
<g class="points">${lines.flatMap((line, i) =>
    line.map(
      ({ step, change }) =>
        markup`<circle cx="${x(step)}" cy="${y(change)}" r="4"><title>step ${step} against step ${step - i - 1}: ${formatNumber(change)}</title></circle>`,
    ),
  )}</g>
</svg></figure>`;
}

function round(pixels: number): number {
  return Number(pixels.toFixed(1));
}
