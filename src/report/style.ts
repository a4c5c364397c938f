/** How the report looks: light and dark, wide and narrow, on screen and on paper. */
import { markup } from "./html.js";

/** A style sheet, not escaped: style elements hold raw text. */
export const STYLE = markup`
:root {
  color-scheme: light dark;
  --paper: #fdfdfb; --ink: #1d2024; --soft: #5d646d; --line: #dfdfd9;
  --compute: #24588f; --reuse: #b9c9da; --forecast: #c98a2b; --alpha: #b23b2a; --bad: #b23b2a;
  --prose: Charter, "Bitstream Charter", "Sitka Text", Cambria, Georgia, serif;
  --data: "Segoe UI", Roboto, "Helvetica Neue", "Liberation Sans", sans-serif;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #16181b; --ink: #e4e4df; --soft: #9aa2ab; --line: #33373c;
    --compute: #7db0e6; --reuse: #3b4f66; --forecast: #dba24c; --alpha: #ee8a78; --bad: #ee8a78;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 1.0625rem/1.55 var(--prose); }
main { max-width: 58rem; margin: 0 auto; padding: clamp(1.5rem, 5vw, 4rem) clamp(1.1rem, 4vw, 2.5rem) 5rem; }
h1 { font-size: clamp(1.7rem, 4.6vw, 2.6rem); line-height: 1.15; font-weight: 600; letter-spacing: -.015em; margin: 0 0 1.2rem; text-wrap: balance; }
h2 { font-size: 1.35rem; line-height: 1.25; font-weight: 600; margin: 0 0 .5rem; }
p { margin: 0 0 1.4rem; max-width: 42rem; }
section { margin-top: 3.5rem; padding-top: 1.4rem; border-top: 1px solid var(--line); }
section > p { color: var(--soft); }
small { font-size: .85em; color: var(--soft); font-weight: 400; white-space: nowrap; }
figure { margin: 0; }
.kicker { font: 600 .8rem/1.4 var(--data); letter-spacing: .04em; color: var(--soft); margin: 0 0 1.2rem; overflow-wrap: anywhere; }
.lead { font-size: 1.15rem; overflow-wrap: break-word; }
.failed { color: var(--bad); font-weight: 600; }
.hidden { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
.figures, .legend, .facts, table, figcaption, svg text { font-family: var(--data); font-variant-numeric: tabular-nums; }

.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(14rem, 1fr)); gap: 1.6rem 2.5rem; margin: 2.5rem 0 0; }
.figures dt { font-size: .9rem; font-weight: 600; color: var(--soft); }
.figures dd { margin: 0; font-size: .9rem; line-height: 1.45; color: var(--soft); }
.figures .value { font-size: 2.6rem; line-height: 1.2; font-weight: 600; letter-spacing: -.02em; color: var(--compute); }

.pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(15rem, 1fr)); gap: 1.5rem; }
.pictures.wide { grid-template-columns: 1fr; }
.pictures img { display: block; width: 100%; height: auto; image-rendering: pixelated; border: 1px solid var(--line); border-radius: 2px; }
figcaption { font-size: .85rem; line-height: 1.45; color: var(--soft); margin-top: .45rem; }

.legend { display: flex; flex-wrap: wrap; gap: .3rem 1.6rem; list-style: none; margin: 0 0 1rem; padding: 0; font-size: .85rem; color: var(--soft); }
.legend li { display: flex; align-items: center; gap: .5rem; }
.schedule { width: 100%; border-collapse: collapse; font-size: .85rem; }
.schedule th { text-align: left; font-weight: 600; padding: .3rem .8rem .3rem 0; white-space: nowrap; max-width: 36vw; overflow: hidden; text-overflow: ellipsis; }
.schedule thead th { color: var(--soft); font-weight: 400; }
.schedule td { padding: .3rem 0; color: var(--soft); }
.schedule td:nth-child(2) { width: 100%; }
.schedule .number { text-align: right; white-space: nowrap; padding: .3rem 0 .3rem .8rem; max-width: none; }
.cells, .schedule .axis { display: block; }
.cells .compute { fill: var(--compute); }
.cells .reuse { fill: var(--reuse); }
.cells .forecast { fill: var(--forecast); }
.cells .idle { fill: var(--reuse); }
.gaps rect { stroke: var(--paper); stroke-width: 1px; }
.cells rect:hover { opacity: .7; }
.axis { overflow: visible; }
.axis text { fill: var(--soft); font-size: 11px; }

.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(19rem, 100%), 1fr)); gap: 1.5rem 2rem; }
.charts figure { max-width: 34rem; }
.charts figcaption { font-weight: 600; color: var(--ink); margin: 0 0 .4rem; overflow-wrap: anywhere; }
.curves { display: block; width: 100%; height: auto; }
.axis path { stroke: var(--line); stroke-width: 1px; fill: none; }
.lag-1, .lag-2, .lag-3 { fill: none; stroke: var(--compute); stroke-width: 1.8px; stroke-linejoin: round; }
.lag-2 { stroke-dasharray: 7 3; opacity: .8; }
.lag-3 { stroke-dasharray: 2 3; opacity: .8; }
.band { fill: var(--compute); opacity: .15; }
.alpha { fill: none; stroke: var(--alpha); stroke-width: 1.2px; }
.points circle { fill: transparent; stroke: none; }
.points circle:hover { fill: var(--compute); }

.scroll { overflow-x: auto; margin: 0 0 1.4rem; }
.data { border-collapse: collapse; width: 100%; font-size: .9rem; line-height: 1.4; }
.data th, .data td { padding: .45rem 0 .45rem 1.4rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); font-weight: 400; }
.data th:first-child { text-align: left; padding-left: 0; white-space: normal; overflow-wrap: anywhere; min-width: 6rem; }
.data thead th { color: var(--soft); }
.data tfoot th, .data tfoot td { font-weight: 600; border-bottom: 0; }
.facts { margin: 0; font-size: .9rem; line-height: 1.4; }
.facts div { display: grid; grid-template-columns: minmax(9rem, 17rem) 1fr; gap: 1rem; padding: .3rem 0; }
.facts dt { color: var(--soft); overflow-wrap: anywhere; }
.facts dd { margin: 0; overflow-wrap: anywhere; }
@media (max-width: 32rem) {
  section { margin-top: 2.5rem; }
  .facts div { grid-template-columns: 1fr; gap: 0; }
  .data { font-size: .78rem; }
  .data th, .data td { padding-left: .6rem; }
  .data th:first-child { min-width: 4.5rem; }
}
@media print {
  @page { margin: 18mm; }
  :root {
    color-scheme: light; --paper: #fff; --ink: #000; --soft: #444; --line: #ccc;
    --compute: #24588f; --reuse: #b9c9da; --forecast: #c98a2b; --alpha: #b23b2a; --bad: #b23b2a;
  }
  html { font-size: 13px; }
  .figures { grid-template-columns: repeat(3, 1fr); }
  main { max-width: none; padding: 0; }
  section { margin-top: 2rem; }
  h2, h2 + p { break-after: avoid; }
  p, figure, tr, .scroll, .figures div, .facts { break-inside: avoid; }
  tfoot { display: table-row-group; }
  .cells, .curves, img { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
`;
