/** Error curves as line charts: how much the branches of a kind change against an earlier step, step by step. */
import { formatNumber } from "./format.js";
import { markup, type Markup } from "./html.js";
import { lineChart, type Point } from "./line-chart.js";
import { ticks } from "./ticks.js";

/** [lag − 1][step], as in ReportData. */
export type Curves = readonly (readonly number[])[];

/** Lags that are drawn. */
const LAGS = 3;

/** One chart a kind, all with the same scales, with a legend of the lags; undefined where there is nothing to draw. */
export function curveCharts(curves: ReadonlyMap<string, Curves>, steps: number, alpha?: number): Markup | undefined {
  const kinds = [...curves].map(([kind, lags]) => ({ kind, lines: lags.slice(0, LAGS).map((line, i) => points(line, i + 1, steps)) }));
  const changes = kinds.flatMap(({ lines }) => lines.flat().map(({ value }) => value));
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
  return line
    .slice(0, steps)
    .flatMap((value, step) =>
      step >= lag && Number.isFinite(value)
        ? [{ step, value, title: `step ${step} against step ${step - lag}: ${formatNumber(value)}` }]
        : [],
    );
}

function chart(kind: string, lines: readonly (readonly Point[])[], levels: readonly number[], steps: number, alpha?: number): Markup {
  const highest = lines.flat().reduce<Point>((best, point) => (point.value > best.value ? point : best), { step: 0, value: 0 });
  return markup`
<figure><figcaption>${kind}</figcaption>${lineChart({
    title: `${kind}: relative L1 change by step`,
    description: `Lines for changes over 1 to ${lines.length} steps; the largest is ${formatNumber(highest.value)} at step ${highest.step}.`,
    measure: "relative L1 change",
    levels,
    steps,
    lines: lines.map((line, i) => ({ name: `lag-${i + 1}`, points: line })),
    limit: alpha,
  })}</figure>`;
}
