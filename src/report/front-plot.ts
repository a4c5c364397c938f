/** The front as a picture: the error over the share of compute that is left, for our plans and for published methods. */
import type { Tradeoff } from "../../schedules/index.js";
import { formatNumber, formatPercent } from "../words/index.js";
import { markup } from "./html.js";
import { CHART_HEIGHT, CHART_WIDTH, type Line, lineChart } from "./line-chart.js";
import { GAP, HEADER, svgDocument } from "./svg.js";
import { logarithmicTicks, ticks } from "./ticks.js";

const LEGEND = 150;
const PITCH = 20;

/** The colours of published methods, in turn. */
const COLOURS = ["#c98a2b", "#b23b2a", "#5d646d", "#5f8a3a", "#7d5ba6"];

const STYLE = markup`
path.chosen { fill: none; stroke: #24588f; stroke-width: 1.8px; stroke-linejoin: round; }
.band { fill: #24588f; opacity: .15; }
.chosen circle { fill: #24588f; }
${COLOURS.map((colour, i) => markup`.published-${i} circle { fill: ${colour}; } path.published-${i} { fill: none; }\n`)}`;

export interface FrontPlot {
  readonly title: string;
  readonly subtitle: string;
  /** The plans of the front, drawn as a line. */
  readonly chosen: readonly Tradeoff[];
  /** By the method's name, drawn as points. */
  readonly published: ReadonlyMap<string, readonly Tradeoff[]>;
}

/** One SVG document. Errors that are 0 or not finite have no place on it. */
export function frontPlot({ title, subtitle, chosen, published }: FrontPlot): string {
  const line = (name: string, label: string, measures: readonly Tradeoff[]): Line => ({
    name,
    points: measures
      .filter(({ error }) => error > 0 && Number.isFinite(error))
      .map(({ share, error, interval }) => {
        const spread = interval === undefined ? "" : ` ± ${formatNumber(interval)}`;
        return { x: share, y: error, margin: interval, title: `${label}, ${formatPercent(share)}: ${formatNumber(error)}${spread}` };
      }),
  });
  const withoutBand = ({ name, points }: Line): Line => ({ name, points: points.map((point) => ({ ...point, margin: undefined })) });
  const entries = [
    { label: "plans of the front", line: line("chosen", "plan", chosen) },
    ...Array.from(published, ([label, measures], i) => ({
      label,
      line: withoutBand(line(`published-${i % COLOURS.length}`, label, measures)),
    })),
  ];
  const points = entries.flatMap(({ line }) => line.points);
  const errors = points.flatMap(({ y, margin = 0 }) => [y, y + margin]);
  const chart = lineChart({
    title,
    description: `The relative L2 error of ${chosen.length} plans over the share of the cacheable compute that they keep.`,
    x: { measure: "share of the cacheable compute", levels: ticks(Math.max(...points.map(({ x }) => x)), 5) },
    y: { measure: "relative L2 error", levels: logarithmicTicks(Math.min(...errors), Math.max(...errors)), isLogarithmic: true },
    lines: entries.map(({ line }) => line).reverse(),
  });
  const key = entries.map(({ label, line: { name } }, i) => {
    const [x, y] = [GAP + CHART_WIDTH + GAP, HEADER + GAP + PITCH * i];
    return markup`<g class="${name}"><circle cx="${x}" cy="${y}" r="4"/></g><text x="${x + 12}" y="${y + 4}">${label}</text>\n`;
  });
  return svgDocument({
    width: GAP + CHART_WIDTH + GAP + LEGEND + GAP,
    height: HEADER + CHART_HEIGHT + GAP,
    title,
    subtitle,
    style: STYLE,
    drawn: markup`<svg x="${GAP}" y="${HEADER}" width="${CHART_WIDTH}" height="${CHART_HEIGHT}">${chart}</svg>
${key}`,
  });
}
