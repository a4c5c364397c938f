/** Error curves as line charts: how much the branches of a group change against an earlier step, step by step. */
import type { MeasuredCurve } from "../planning/index.js";
import { formatNumber } from "../words/index.js";
import { markup, type Markup } from "./html.js";
import { lineChart, type Point, stepAxis } from "./line-chart.js";
import { ticks } from "./ticks.js";

/** Lags that are drawn. */
const LAGS = 3;

/** One chart a group, all with the same scales, with a legend of the lags; undefined where there is nothing to draw. */
export function curveCharts(curves: ReadonlyMap<string, MeasuredCurve>, steps: number, alpha?: number): Markup | undefined {
  const groups = [...curves].map(([group, { mean, confidence }]) => ({
    group,
    lines: mean.slice(0, LAGS).map((line, i) => points(line, confidence?.[i], i + 1, steps)),
  }));
  const changes = groups.flatMap(({ lines }) => lines.flat().map(({ y, margin = 0 }) => y + margin));
  if (changes.length === 0) return undefined;
  const largest = changes.reduce((a, b) => Math.max(a, b), alpha ?? 0);
  const drawn = Math.max(...groups.map(({ lines }) => lines.length));
  const hasBands = [...curves.values()].some(({ confidence }) => confidence);
  return markup`<ul class="legend">${Array.from(
    { length: drawn },
    (_, i) => markup`
<li><svg width="28" height="10" aria-hidden="true"><path class="lag-${i + 1}" d="M0 5H28"/></svg>${
      i === 0 ? "since the step before" : `since ${i + 1} steps before`
    }</li>`,
  )}${
    hasBands
      ? markup`
<li><svg width="28" height="10" aria-hidden="true"><path class="band" d="M0 0H28V10H0Z"/></svg>95 % confidence interval over samples</li>`
      : undefined
  }${
    alpha === undefined
      ? undefined
      : markup`
<li><svg width="28" height="10" aria-hidden="true"><path class="alpha" d="M0 5H28"/></svg>threshold α = ${formatNumber(alpha)}</li>`
  }
</ul>
<div class="charts">${groups.map(({ group, lines }) => chart(group, lines, ticks(largest, 5), steps, alpha))}
</div>`;
}

function points(line: readonly number[], margins: readonly number[] | undefined, lag: number, steps: number): readonly Point[] {
  return line.slice(0, steps).flatMap((value, step) => {
    if (step < lag || !Number.isFinite(value)) return [];
    const margin = margins?.[step];
    const spread = margin === undefined ? "" : ` ± ${formatNumber(margin)}`;
    return [{ x: step, y: value, margin, title: `step ${step} against step ${step - lag}: ${formatNumber(value)}${spread}` }];
  });
}

function chart(group: string, lines: readonly (readonly Point[])[], levels: readonly number[], steps: number, alpha?: number): Markup {
  const highest = lines.flat().reduce<Point>((best, point) => (point.y > best.y ? point : best), { x: 0, y: 0 });
  return markup`
<figure><figcaption>${group}</figcaption>${lineChart({
    title: `${group}: relative L1 change by step`,
    description: `Lines for changes over 1 to ${lines.length} steps; the largest is ${formatNumber(highest.y)} at step ${highest.x}.`,
    x: stepAxis(steps),
    y: { measure: "relative L1 change", levels },
    lines: lines.map((line, i) => ({ name: `lag-${i + 1}`, points: line })),
    limit: alpha,
  })}</figure>`;
}
