/** A schedule as a separate picture: a row for every group of branches, or for every branch if those of a group differ. */
import { markup } from "./html.js";
import { GAP, HEADER, svgDocument } from "./svg.js";
import { axisLabels, bar, bars, computedOf, hasGaps, legend, type ScheduleRow } from "./schedule.js";

/** The approximate width of a letter in a label. */
const LETTER = 6.6;
const WIDTH = 900;
const COUNTS = 80;
const TOP = HEADER + 36;

/** Distance between rows, and the height of their cells; tighter where there are many. */
const ROOMY = { pitch: 32, height: 24 };
const TIGHT = { pitch: 17, height: 14 };
const MOST_ROOMY_ROWS = 16;

const STYLE = markup`
.label { font-weight: 600; fill: #1d2024; }
.compute { fill: #24588f; } .reuse, .idle { fill: #b9c9da; } .forecast { fill: #c98a2b; }
.gaps rect { stroke: #fdfdfb; stroke-width: 1px; }
`;

export interface SchedulePlot {
  readonly title: string;
  readonly subtitle: string;
  readonly rows: readonly ScheduleRow[];
  readonly steps: number;
}

/** One SVG document. */
export function schedulePlot({ title, subtitle, rows, steps }: SchedulePlot): string {
  const { pitch, height } = rows.length > MOST_ROOMY_ROWS ? TIGHT : ROOMY;
  const labels = rows.map(({ label, branches }) => (branches > 1 ? `${label} × ${branches}` : label));
  const left = GAP + Math.ceil(labels.reduce((most, label) => Math.max(most, label.length * LETTER), 0)) + 16;
  const bottom = TOP + rows.length * pitch;
  const examples = legend(rows);
  return svgDocument({
    width: left + WIDTH + COUNTS + GAP,
    height: bottom + 40,
    title,
    subtitle,
    style: STYLE,
    drawn: markup`${examples.map(
      ({ cell, word }, i) => markup`<svg x="${left + 110 * i}" y="${HEADER}" width="110" height="24">${bar(cell, "0", "10", 24)}
<text x="18" y="18">${word}</text></svg>
`,
    )}${rows.map((row, i) => {
      const y = TOP + i * pitch;
      const baseline = y + height / 2 + 4;
      return markup`<text class="label" x="${GAP}" y="${baseline}">${labels[i]}</text>
<svg class="${hasGaps(steps) ? "gaps" : "cells"}" x="${left}" y="${y}" width="${WIDTH}" height="${height}" role="img">
${bars(row, height)}</svg>
<text x="${left + WIDTH + 14}" y="${baseline}">${computedOf(row)}</text>
`;
    })}<text x="${GAP}" y="${bottom + 17}">step</text>
<svg x="${left}" y="${bottom + 4}" width="${WIDTH}" height="18" overflow="visible">${axisLabels(steps)}</svg>
`,
  });
}
