/** A sampler as a picture: the time, the noise level, and the weights of the next latent at each step. */
import type { Row, SamplerTable, Term } from "../../schedules/index.js";
import { counted, formatNumber } from "../words/index.js";
import { type Content, markup } from "./html.js";
import { CHART_HEIGHT, CHART_WIDTH, type Line, lineChart, stepAxis } from "./line-chart.js";
import { GAP, HEADER, svgDocument } from "./svg.js";
import { ticksBetween } from "./ticks.js";

const FOOTER = 50;

/** The lines of the weights: the class, the label in the legend, and the value in a row, which adds up weights. */
const WEIGHTS: readonly (readonly [name: string, label: string, (row: Row, k: number) => number])[] = [
  ["latent", "latent", ({ next }) => total(next.x)],
  ["current", "prediction", ({ next }, k) => total(predictions(next).filter(({ step }) => step === k))],
  ["earlier", "earlier predictions", ({ next }, k) => total(predictions(next).filter(({ step }) => step < k))],
  ["noise", "noise", ({ next }) => next.noise],
];

const STYLE = markup`
.time, .sigma, .latent, .current, .earlier, .noise { fill: none; stroke-width: 1.8px; stroke-linejoin: round; }
.time, .sigma, .current { stroke: #24588f; } .latent { stroke: #5d646d; } .earlier { stroke: #c98a2b; } .noise { stroke: #b23b2a; }
.points circle { fill: transparent; stroke: none; }
`;

/** One SVG document: times, noise levels where the table has them, weights. Lines that are 0 throughout are left out. */
export function samplerPlot({ name, prediction, initialScale, rows }: SamplerTable): string {
  const steps = rows.length;
  const line = (name: string, label: string, valueOf: (row: Row, k: number) => number): Line => ({
    name,
    points: rows.map((row, k) => {
      const y = valueOf(row, k);
      return { x: k, y, title: `${label}, step ${k}: ${formatNumber(y)}` };
    }),
  });
  const times = line("time", "time", ({ timestep }) => timestep);
  const sigmas = rows.every(({ sigma }) => sigma !== undefined) ? [line("sigma", "sigma", ({ sigma = NaN }) => sigma)] : [];
  const drawn = WEIGHTS.map(([name, label, valueOf]) => ({ label, line: line(name, label, valueOf) })).filter(({ line }) =>
    line.points.some(({ y }) => y !== 0),
  );
  const weights = drawn.map(({ line }) => line);
  const chart = (title: string, measure: string, lines: readonly Line[]): Content =>
    lineChart({
      title,
      description: `${measure} at each of ${steps} steps.`,
      x: stepAxis(steps),
      y: { measure, levels: levelsOf(lines) },
      lines,
    });
  const charts = [
    chart("Times", "time that the model is told", [times]),
    ...sigmas.map((line) => chart("Noise levels", "sigma of the latent", [line])),
    chart("Weights", "weight in the next latent", weights),
  ];
  const left = (i: number): number => GAP + i * (CHART_WIDTH + GAP);
  const height = HEADER + CHART_HEIGHT + FOOTER;
  const key = drawn.map(({ label, line }, i) => {
    const before = drawn.slice(0, i).reduce((length, { label }) => length + label.length, 0);
    const x = left(charts.length - 1) + 40 * i + 6 * before;
    const y = height - 22;
    return markup`<path class="${line.name}" d="M${x} ${y - 4}h14"/><text x="${x + 18}" y="${y}">${label}</text>`;
  });
  return svgDocument({
    width: left(charts.length),
    height,
    title: `${name}, ${counted(steps, "row")}`,
    subtitle: `${prediction}, initial scale ${formatNumber(initialScale)}`,
    style: STYLE,
    drawn: markup`${charts.map((chart, i) => markup`<svg x="${left(i)}" y="${HEADER}" width="${CHART_WIDTH}" height="${CHART_HEIGHT}">${chart}</svg>\n`)}${key}
`,
  });
}

function levelsOf(lines: readonly Line[]): readonly number[] {
  const values = lines.flatMap(({ points }) => points.map(({ y }) => y));
  return ticksBetween(
    values.reduce((a, b) => Math.min(a, b), 0),
    values.reduce((a, b) => Math.max(a, b), 0),
    5,
  );
}

function predictions({ m, out = [] }: Row["next"]): readonly Term[] {
  return [...m, ...out];
}

function total(terms: readonly Term[]): number {
  return terms.reduce((sum, { weight }) => sum + weight, 0);
}
