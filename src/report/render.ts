/** The report: one HTML file about what was saved, at which error, and how to check that. It can be opened from disk and loads nothing. */
import { curveCharts } from "./curves.js";
import type { Bench, Timing } from "../artifact/index.js";
import type { Comparison } from "../planning/index.js";
import type { Facts, ReportData, ReportPictures, ReportVerify } from "./data.js";
import { counted, formatCount, formatDuration, formatNumber, formatPercent, formatQuantity, formatRatio } from "../words/index.js";
import { type Content, markup, type Markup } from "./html.js";
import { scheduleChart, scheduleRows } from "./schedule.js";
import { device, facts, page, quantity, section, sentence, table } from "./page.js";
export type * from "./data.js";

/** The whole page. The same data gives the same bytes; parts that are absent leave their sections out. */
export function renderReport(data: ReportData): string {
  const { title, curves, steps, alpha, times, verify, pictures } = data;
  const chart = curves && curveCharts(curves, steps, alpha);
  return page(`${title}: ${headline(data)}`, [
    opening(data),
    pictures && picturesSection(pictures),
    scheduleSection(data),
    chart && curvesSection(chart, alpha),
    data.comparison && comparisonSection(data.comparison, verify),
    workSection(data),
    times && timesSection(times),
    verify && checksSection(verify),
    settingsSection(data),
  ]);
}

/** The result in one line: "1.90× less computation, 1.80× faster, error 2.1 %". */
export function headline({ macs, steps, times, verify }: ReportData): string {
  if (!reuses(macs.bound)) return `all ${steps} steps in one model, nothing reused`;
  return [
    `${formatRatio(macs.bound)} less computation`,
    ...(times ? [`${formatRatio(times.speedup.measured)} faster`] : []),
    ...(verify ? [`error ${formatPercent(verify.fidelity.relL2)}`] : []),
  ].join(", ");
}

function reuses(bound: number): boolean {
  return bound > 1.0005;
}

function opening(data: ReportData): Markup {
  const { title, steps, macs, times, verify } = data;
  const failed = verify?.checks.filter(({ ok }) => !ok).length ?? 0;
  const plain = markup`<b>${title}</b> makes its result in ${steps} steps, and every step runs the whole network.`;
  const lead = reuses(macs.bound)
    ? markup`${plain} Some of its parts give nearly the same answer from one step to the next. This compiled model computes those parts at some of the steps only, and uses their earlier answers at the others.`
    : markup`${plain} This compiled model holds all of them; nothing is left out, so it is the yardstick for models that reuse parts of the work.`;
  const figures = [
    figure("less computation", formatRatio(macs.bound), [
      markup`${quantity(macs.emitted)} instead of ${quantity(macs.uncached)} (multiply-accumulate operations of a whole run)`,
    ]),
    times &&
      figure("faster, measured", formatRatio(times.speedup.measured), [
        markup`${formatDuration(times.artifact.medianMs)} instead of ${formatDuration(times.uncached.medianMs)} for a run, on ${device(times)}`,
      ]),
    verify &&
      figure("error", formatPercent(verify.fidelity.relL2), [
        markup`relative L2 distance from the result without reuse, same noise, ${counted(verify.fidelity.samples, "sample")}`,
      ]),
  ];
  return markup`<header>
<p class="kicker">smoothcc report · ${title}</p>
<h1>${sentence(headline(data))}</h1>
<p class="lead">${lead}</p>
${failed > 0 ? markup`<p class="failed">${failed} of ${verify?.checks.length} checks failed: do not rely on this model. See Checks below.</p>` : undefined}
${reuses(macs.bound) ? markup`<dl class="figures">${figures}</dl>` : undefined}
</header>`;
}

function figure(label: string, value: string, explanation: Content): Markup {
  return markup`
<div><dt>${label}</dt><dd class="value">${value}</dd><dd>${explanation}</dd></div>`;
}

function picturesSection({ uncached, cached, difference, caption }: ReportPictures): Markup {
  const { width, height } = pngSize(uncached);
  return section(
    "Pictures",
    markup`${caption} Both start from the same noise.`,
    markup`<div class="pictures${width > 2 * height ? " wide" : ""}">
${picture(uncached, "without reuse: every step computed in full")}
${picture(cached, "with reuse: what this model makes")}
${difference && picture(difference.png, `difference: black where they agree, white = ${formatNumber(difference.white)}, the largest difference`)}
</div>`,
  );
}

function picture(png: Uint8Array, caption: string): Markup {
  const { width, height } = pngSize(png);
  return markup`<figure><img src="data:image/png;base64,${Buffer.from(png).toString("base64")}" width="${width}" height="${height}" alt="${caption}"><figcaption>${caption}</figcaption></figure>`;
}

/** Width and height stand at fixed places of every PNG file (its IHDR chunk comes first). */
function pngSize(png: Uint8Array): { readonly width: number; readonly height: number } {
  const view = new DataView(png.buffer, png.byteOffset, png.byteLength);
  return { width: view.getUint32(16), height: view.getUint32(20) };
}

function scheduleSection({ branches, cells, steps }: ReportData): Markup | undefined {
  const rows = scheduleRows(branches, cells);
  if (rows.length === 0) return undefined;
  const isPartly = rows.some((row) => row.cells.some(({ kind, computed }) => kind !== "compute" && computed > 0));
  const partly = isPartly ? " Where a tall bar is filled in part, that share of the tokens is computed." : "";
  return section(
    "Schedule",
    `Which parts of the network run at which step; step 0 is the first, where the latent is pure noise. Tall bars cost time, short ones next to nothing.${partly}`,
    scheduleChart(rows, steps),
  );
}

function curvesSection(chart: Markup, alpha: number | undefined): Markup {
  const rule = alpha === undefined ? "" : " Where the change stays under the threshold α, the policy reuses the earlier answer.";
  return section(
    "How much the parts change",
    `What calibration measured: the change of a part's answer against an earlier step, relative to its size (0.1 is a tenth), averaged over samples and blocks. Low and flat is good to reuse.${rule}`,
    chart,
  );
}

function comparisonSection({ error, interval, candidate, compared }: Comparison, verify?: ReportVerify): Markup {
  const within = (error: number, interval?: number): string =>
    `${formatNumber(error)}${interval === undefined ? "" : ` ± ${formatNumber(interval)}`}`;
  const ranked = [...compared].sort(([, a], [, b]) => a.error - b.error);
  return section(
    "How the plan was chosen",
    "Schedules for the same budget were run on the samples of the calibration; the weaker ones on a few of them only. “Stack” forecasts what all blocks add as one answer, “closed loop” has weights that are fitted along such runs. Relative L2 distances from the results without reuse: means ± 95 % confidence.",
    facts([
      ["expected from the calibration", within(error, interval)],
      ...(verify
        ? [["measured on this model", `${formatNumber(verify.fidelity.relL2)} (${counted(verify.fidelity.samples, "sample")})`] as const]
        : []),
    ]),
    table(
      ["schedule", "computed", "distance", "samples"],
      markup`${ranked.map(
        ([name, { share, error, interval, samples }]) => markup`
<tr><th scope="row">${name === candidate ? markup`<b>${name}</b> <small>chosen</small>` : name}</th><td>${formatPercent(share)}</td><td>${within(error, interval)}</td><td>${samples}</td></tr>`,
      )}`,
    ),
  );
}

function workSection({ branches, macs, nodes, bytes, cachePeakBytes }: ReportData): Markup {
  const groups = [...new Set(branches.map(({ group }) => group))].map((group) => {
    const members = branches.filter((branch) => branch.group === group);
    return {
      group,
      count: members.length,
      uncached: members.reduce((sum, { uncached }) => sum + uncached, 0),
      emitted: members.reduce((sum, { emitted }) => sum + emitted, 0),
    };
  });
  const rest = {
    uncached: groups.reduce((left, { uncached }) => left - uncached, macs.uncached),
    emitted: groups.reduce((left, { emitted }) => left - emitted, macs.emitted),
  };
  const row = (name: Content, full: number, kept: number): Markup => markup`
<tr><th scope="row">${name}</th><td>${quantity(full)}</td><td>${formatPercent(full / macs.uncached)}</td><td>${quantity(kept)}</td></tr>`;
  return section(
    "Work and size",
    "Multiply-accumulates (MAC) of a whole run, by the parts of the network. They do not depend on the machine.",
    table(
      ["part", "without reuse", "share", "with reuse"],
      markup`${groups.map(({ group, count, uncached, emitted }) => row(markup`${group} <small>× ${count}</small>`, uncached, emitted))}${row(
        markup`the rest <small>never reused</small>`,
        rest.uncached,
        rest.emitted,
      )}`,
      markup`<tr><th scope="row">all</th><td>${quantity(macs.uncached)}</td><td>${formatPercent(1)}</td><td>${quantity(macs.emitted)}</td></tr>`,
    ),
    facts([
      ["without reuse ÷ with reuse", formatRatio(macs.bound)],
      ["graph nodes", `${formatCount(nodes.emitted)} (without reuse ${formatCount(nodes.uncached)}; one step ${formatCount(nodes.step)})`],
      ["model file", formatQuantity(bytes.model, "B")],
      ["data file, the weights", formatQuantity(bytes.data, "B")],
      ["memory for kept answers, at most", formatQuantity(cachePeakBytes, "B")],
    ]),
  );
}

function timesSection(times: Bench): Markup {
  const row = (name: string, timing: Timing): Markup => markup`
<tr><th scope="row">${name}</th><td>${formatDuration(timing.medianMs)}</td><td>${formatDuration(timing.iqrMs)}</td><td>${formatRatio(
    timing.medianMs / times.artifact.medianMs,
  )}</td><td>${formatDuration(timing.loadMs)}</td><td>${formatQuantity(timing.rssBytes, "B")}</td></tr>`;
  return section(
    "Measured times",
    markup`One whole run, ${times.runs} times each in turn, on ${device(times)}; the median, and the distance between the quartiles (IQR). Other machines give other times; what reuse can gain at most is the same everywhere, ${formatRatio(times.speedup.macBound)}, and ${formatPercent(times.speedup.ofBound)} of it is reached here.`,
    table(
      ["", "median", "IQR", "relative", "loading", "memory"],
      markup`${row("this model", times.artifact)}${row("one model, no reuse", times.uncached)}${row("step by step", times.loop)}`,
    ),
  );
}

function checksSection({ checks, fidelity }: ReportVerify): Markup {
  return section(
    "Checks",
    "This model was run against an independent program that applies the same schedule to the original network, step by step. Relative L2 distances; 0 is equal.",
    table(
      ["check", "distance", "limit", "result"],
      markup`${checks.map(
        ({ name, relL2, limit, ok, note }) => markup`
<tr><th scope="row">${name}</th><td>${formatNumber(relL2)}</td><td>${formatNumber(limit)}</td><td>${ok ? "passed" : markup`<b class="failed">failed</b>`}${note && `: ${note}`}</td></tr>`,
      )}`,
    ),
    facts([
      ["distance from the result without reuse", `${formatNumber(fidelity.relL2)} (relative L2, ${counted(fidelity.samples, "sample")})`],
      ["peak signal to noise ratio", Number.isFinite(fidelity.psnr) ? `${fidelity.psnr.toFixed(1)} dB` : "the results are equal"],
    ]),
  );
}

function settingsSection({ title, sampler, steps, guidance, policy, settings = {}, versions }: ReportData): Markup {
  return section(
    "Settings",
    undefined,
    facts([
      ["model", title],
      ["sampler", `${sampler}, ${steps} steps`],
      ["guidance", guidance],
      ...(policy ? [["policy", [policy.name, ...entries(policy.options).map((pair) => pair.join(" "))].join(", ")] as const] : []),
      ...entries(settings),
      ...entries(versions),
    ]),
  );
}

function entries(given: Facts): readonly (readonly [string, string])[] {
  return Object.entries(given).map(([name, value]) => [name, String(value)]);
}
