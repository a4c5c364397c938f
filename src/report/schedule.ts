/** The schedule as a chart: a row for every group of branches, or for every branch if those of a group differ; a cell for every step. */
import { type Cell, computedPart } from "../../schedules/index.js";
import { formatNumber, formatPercent } from "../words/index.js";
import { CELL_KINDS, type CellKind, type DrawnCell, type ReportBranch } from "./data.js";
import { markup, type Markup } from "./html.js";
import { ticks } from "./ticks.js";

export interface ScheduleRow {
  readonly label: string;
  readonly branches: number;
  readonly cells: readonly DrawnCell[];
}

/** How a cell is drawn. */
export function drawnCell(cell: Cell): DrawnCell {
  return { kind: kindOf(cell), computed: computedPart(cell) };
}

function kindOf(cell: Cell): CellKind {
  if (cell.kind !== "terms") return cell.kind;
  const isReuse = cell.terms.length === 1 && cell.terms[0]?.weight === 1 && !cell.scale && !cell.shift;
  return isReuse ? "reuse" : "forecast";
}

/** Rows in the order of the branches; branches without cells have none. */
export function scheduleRows(
  branches: readonly Pick<ReportBranch, "site" | "group">[],
  cells: ReadonlyMap<string, readonly DrawnCell[]>,
): readonly ScheduleRow[] {
  const planned = branches.flatMap(({ site, group }) => {
    const row = cells.get(site);
    return row ? [{ site, group, row }] : [];
  });
  return [...new Set(planned.map(({ group }) => group))].flatMap((wanted) => {
    const sites = planned.filter(({ group }) => group === wanted);
    const [first] = sites;
    const text = (row: readonly DrawnCell[]): string => row.map(({ kind, computed }) => `${kind} ${computed}`).join();
    if (first && sites.every(({ row }) => text(row) === text(first.row)))
      return [{ label: wanted, branches: sites.length, cells: first.row }];
    return sites.map(({ site, row }) => ({ label: site, branches: 1, cells: row }));
  });
}

const WORDS: Readonly<Record<CellKind, string>> = { compute: "computed", reuse: "reused", forecast: "forecast", idle: "not guided" };

const SOME = "some tokens";

/** What a cell is called in a legend. */
function wordOf({ kind, computed }: DrawnCell): string {
  return isPart(computed) ? SOME : WORDS[kind];
}

/** What a cell is called by itself. */
function nameOf({ kind, computed }: DrawnCell): string {
  return isPart(computed) ? `${formatPercent(computed)} of the tokens computed, the others ${WORDS[kind]}` : WORDS[kind];
}

function isPart(computed: number): boolean {
  return computed > 0 && computed < 1;
}

/** Bars differ in height as well as in colour, so that the chart can be read without colours. */
const TOP: Readonly<Record<CellKind, number>> = { compute: 0, reuse: 17, forecast: 9, idle: 22 };
const HEIGHT = 24;

/** What of a bar can be seen between gaps. */
const LEAST = 3;

/** Beyond this many steps, gaps between the cells would be wider than the cells. */
const MOST_WITH_GAPS = 120;

/** A table of the rows, their cells as SVG, with a legend of the kinds of cell that occur. */
export function scheduleChart(rows: readonly ScheduleRow[], steps: number): Markup {
  return markup`<ul class="legend">${legend(rows).map(
    ({ cell, word }) => markup`
<li><svg class="cells" width="10" height="${HEIGHT}" aria-hidden="true">${bar(cell, "0", "10", HEIGHT)}</svg>${word}</li>`,
  )}
</ul>
<table class="schedule">
<thead><tr><th scope="col">branch</th><th scope="col"><span class="hidden">steps</span></th><th scope="col" class="number">computed</th></tr></thead>
<tbody>${rows.map((row) => scheduleRow(row, steps))}
<tr aria-hidden="true"><td>step</td><td>${axis(steps)}</td><td></td></tr>
</tbody></table>`;
}

/** An example of each kind of cell that occurs, and what it is called. What the others do where some tokens are computed occurs, too. */
export function legend(rows: readonly ScheduleRow[]): readonly { readonly cell: DrawnCell; readonly word: string }[] {
  const cells = rows.flatMap((row) => row.cells);
  const whole = (kind: CellKind): DrawnCell => ({ kind, computed: Number(kind === "compute") });
  const examples = new Map(cells.map(({ kind }) => [WORDS[kind], whole(kind)]));
  const some = cells.find(({ computed }) => isPart(computed));
  if (some) examples.set(SOME, { ...some, computed: 0.5 });
  return ALL_WORDS.flatMap((word) => {
    const cell = examples.get(word);
    return cell ? [{ cell, word }] : [];
  });
}

const ALL_WORDS: readonly string[] = [...new Set([WORDS.compute, SOME, ...CELL_KINDS.map((kind) => WORDS[kind])])];

function scheduleRow(row: ScheduleRow, steps: number): Markup {
  const { label, branches } = row;
  return markup`
<tr><th scope="row">${label}${branches > 1 ? markup` <small>× ${branches}</small>` : undefined}</th>
<td><svg class="cells${hasGaps(steps) ? " gaps" : ""}" width="100%" height="${HEIGHT}" role="img">
${bars(row, HEIGHT)}</svg></td>
<td class="number">${computedOf(row)}</td></tr>`;
}

/** Whether there is room for gaps between the cells. */
export function hasGaps(steps: number): boolean {
  return steps <= MOST_WITH_GAPS;
}

/** "27 of 50". A cell that computes some tokens counts as their share. */
export function computedOf({ cells }: ScheduleRow): string {
  return `${formatNumber(cells.reduce((sum, { computed }) => sum + computed, 0))} of ${cells.length}`;
}

/** The cells of a row, for an `svg` element of this height, with a title and a description; x in percent of its width. */
export function bars(row: ScheduleRow, height: number): Markup {
  const { label, cells } = row;
  const width = percent(1 / cells.length);
  return markup`<title>${label}: computed at ${computedOf(row)} steps</title>
<desc>${description(cells)}</desc>
${cells.map((cell, step) => bar(cell, percent(step / cells.length), width, height, `${label}, step ${step}: ${nameOf(cell)}`))}`;
}

/** One cell. Where some tokens are computed it is as tall as if all were, and filled up to their share. */
export function bar({ kind, computed }: DrawnCell, x: string, width: string, height: number, title?: string): Markup {
  const tooltip = title === undefined ? undefined : markup`<title>${title}</title>`;
  const rect = (of: CellKind, top: number, title?: Markup): Markup =>
    markup`<rect class="${of}" x="${x}" y="${top}" width="${width}" height="${height - top}">${title}</rect>`;
  if (!isPart(computed)) return rect(kind, Math.round((height * TOP[kind]) / HEIGHT), tooltip);
  return markup`<g>${tooltip}${rect(kind, 0)}${rect("compute", Math.min(height - LEAST, Math.round(height * (1 - computed))))}</g>`;
}

function axis(steps: number): Markup {
  return markup`<svg class="axis" width="100%" height="18">${axisLabels(steps)}</svg>`;
}

/** Numbers of steps below their cells, for an `svg` element as wide as these. */
export function axisLabels(steps: number): Markup {
  return markup`${ticks(steps - 1, 5)
    .filter((step) => Number.isInteger(step) && step < steps)
    .map((step) => markup`<text x="${percent((step + 0.5) / steps)}" y="13" text-anchor="middle">${step}</text>`)}`;
}

/** "computed at 0–4, 6, 8; some tokens at 9; reused at 5, 7". */
function description(cells: readonly DrawnCell[]): string {
  return ALL_WORDS.flatMap((word) => {
    const steps = cells.flatMap((cell, step) => (wordOf(cell) === word ? [step] : []));
    return steps.length === 0 ? [] : [`${word} at ${ranges(steps)}`];
  }).join("; ");
}

function ranges(steps: readonly number[]): string {
  const found: { readonly from: number; to: number }[] = [];
  for (const step of steps) {
    const last = found.at(-1);
    if (last?.to === step - 1) last.to = step;
    else found.push({ from: step, to: step });
  }
  return found.map(({ from, to }) => (from === to ? `${from}` : `${from}–${to}`)).join(", ");
}

function percent(fraction: number): string {
  return `${Number((100 * fraction).toFixed(3))}%`;
}
