/** The report as a file: complete, escaped, self-contained, the same every time. */
import { decode } from "fast-png";
import { describe, expect, it } from "vitest";
import { latentPicture } from "../src/report/picture.js";
import { formatCount, formatDuration, formatNumber, formatPercent, formatQuantity, formatRatio } from "../src/words/numbers.js";
import { type CellKind, type DrawnCell, headline, renderReport, type ReportData } from "../src/report/render.js";
import { rasterise } from "../src/report/raster.js";
import { samplerPlot } from "../src/report/sampler-plot.js";
import { schedulePlot } from "../src/report/schedule-plot.js";
import { frontPlot } from "../src/report/front-plot.js";
import { logarithmicTicks, ticks, ticksBetween } from "../src/report/ticks.js";

const STEPS = 6;
const plain = (text: string): string => text.replaceAll("\u00a0", " ");

const KINDS: Readonly<Record<string, CellKind>> = { C: "compute", r: "reuse", f: "forecast", i: "idle" };
const row = (letters: string): DrawnCell[] =>
  Array.from(letters, (letter) => ({ kind: KINDS[letter] ?? "idle", computed: Number(letter === "C") }));

const bare: ReportData = {
  title: "glyphs",
  sampler: "DDIM",
  steps: STEPS,
  guidance: "1.5",
  versions: { smoothcc: "0.1.0" },
  branches: [
    { site: "attn-0", group: "attn", uncached: 6e6, emitted: 4e6 },
    { site: "mlp-0", group: "mlp", uncached: 12e6, emitted: 6e6 },
    { site: "attn-1", group: "attn", uncached: 6e6, emitted: 4e6 },
    { site: "mlp-1", group: "mlp", uncached: 12e6, emitted: 12e6 },
  ],
  cells: new Map(),
  macs: { uncached: 42e6, emitted: 42e6, bound: 1 },
  nodes: { step: 120, uncached: 1720, emitted: 1720 },
  bytes: { model: 204_800, data: 17_825_792 },
  cachePeakBytes: 0,
};

const timing = { loadMs: 210, medianMs: 1921, iqrMs: 33, rssBytes: 312e6 };

const full: ReportData = {
  ...bare,
  policy: { name: "smoothcache", options: { alpha: 0.08, rule: "paper" } },
  settings: { batch: 8 },
  cells: new Map([
    ["attn-0", row("CrCrCC")],
    ["mlp-0", row("CrrCfC")],
    ["attn-1", row("CrCrCC")],
    ["mlp-1", row("CCCCCC")],
  ]),
  curves: new Map([
    [
      "attn",
      {
        mean: [
          [0, 0.5, 0.1, 0.1, 0.2, 0.3],
          [0, 0, 0.2, NaN, 0.3, 0.4],
        ],
        confidence: [[0, 0.1, 0.2, 0, 0.1, 0.1]],
      },
    ],
  ]),
  alpha: 0.08,
  macs: { uncached: 42e6, emitted: 34e6, bound: 42 / 34 },
  times: {
    device: "cpu",
    threads: 2,
    runs: 5,
    artifact: timing,
    uncached: { ...timing, medianMs: 2305.2 },
    loop: timing,
    speedup: { measured: 1.2, macBound: 42 / 34, ofBound: (1.2 * 34) / 42 },
  },
  verify: {
    checks: [{ name: "plan-aware loop", relL2: 4.1e-7, limit: 1e-5, ok: true }],
    fidelity: { relL2: 0.0312, psnr: 34.5, samples: 8 },
  },
  comparison: {
    error: 0.03,
    interval: 0.002,
    share: 0.5,
    candidate: "path; closed loop",
    compared: new Map([
      ["fora", { share: 0.5, error: 0.11, samples: 1, isPublished: true }],
      ["path; closed loop", { share: 0.5, error: 0.028, interval: 0.002, samples: 10, isPublished: false }],
    ]),
  },
  pictures: {
    uncached: latentPicture({ shape: [1, 1, 1, 3], values: Float32Array.of(0, 0.5, 1) }, [0, 1]),
    cached: latentPicture({ shape: [1, 1, 1, 3], values: Float32Array.of(0, 0.4, 1) }, [0, 1]),
    difference: { png: latentPicture({ shape: [1, 1, 1, 3], values: Float32Array.of(0, 1, 0) }, [0, 1]), white: 0.1 },
    caption: "A ramp.",
  },
};

function sections(html: string): string[] {
  return [...html.matchAll(/<h2>(.*?)<\/h2>/g)].map(([, title = ""]) => title);
}

function count(html: string, text: string): number {
  return html.split(text).length - 1;
}

/** Elements that are opened and not closed in order; void elements and self-closed ones aside. */
function unbalanced(html: string): string[] {
  const open: string[] = [];
  for (const [, close, name = "", self] of html.matchAll(/<(\/?)([a-z][a-z0-9]*)(?:\s[^<>]*?)?(\/?)>/g)) {
    if (self === "/" || ["meta", "img"].includes(name)) continue;
    if (close !== "/") open.push(name);
    else if (open.pop() !== name) return [`</${name}>`, ...open];
  }
  return open;
}

describe("renderReport", () => {
  const html = renderReport(full);

  it("has every section, or only those that there is something for", () => {
    expect(sections(html)).toEqual([
      "Pictures",
      "Schedule",
      "How much the parts change",
      "How the plan was chosen",
      "Work and size",
      "Measured times",
      "Checks",
      "Settings",
    ]);
    const plain = renderReport(bare);
    expect(sections(plain)).toEqual(["Work and size", "Settings"]);
    expect(plain).toContain("<h1>All 6 steps in one model, nothing reused</h1>");
    for (const text of [html, plain]) expect(text).not.toMatch(/undefined|NaN|\[object/);
  });

  it("is well-formed", () => {
    expect(unbalanced(html)).toEqual([]);
    expect(unbalanced(renderReport(bare))).toEqual([]);
    expect(unbalanced("<p><b></p>")).not.toEqual([]);
  });

  it("loads nothing and runs nothing", () => {
    const addresses = [...html.matchAll(/(?:src|href|url|action|data)\s*[=(]\s*["']?([^"')\s]*)/g)].map(([, address = ""]) => address);
    expect(addresses).toHaveLength(3);
    for (const address of addresses) expect(address).toMatch(/^data:image\/png;base64,[A-Za-z0-9+/]+=*$/);
    expect(html).not.toMatch(/https?:|<script|<link|@import|\son[a-z]+=/);
    expect(html).toContain(`content="default-src 'none'; style-src 'unsafe-inline'; img-src data:"`);
  });

  it("carries the pictures' bytes", () => {
    for (const png of [full.pictures?.uncached, full.pictures?.cached, full.pictures?.difference?.png]) {
      expect(count(html, `base64,${Buffer.from(png ?? []).toString("base64")}" width="3" height="1"`)).toBe(1);
    }
    expect(html).toContain("white = 0.100");
  });

  it("does not escape its style sheet", () => {
    const style = /<style>(.*?)<\/style>/s.exec(html)?.[1] ?? "";
    expect(style).toContain('"');
    expect(style).not.toContain("&");
  });

  it("says the result in its headline", () => {
    expect(headline(full)).toBe("1.24× less computation, 1.20× faster, error 3.1\u00a0%");
    expect(headline({ ...full, times: undefined, verify: undefined })).toBe("1.24× less computation");
  });

  it("shows every cell once: a row for a group whose branches agree, else a row a branch", () => {
    const expected = [
      ["attn", "CrCrCC"],
      ["mlp-0", "CrrCfC"],
      ["mlp-1", "CCCCCC"],
    ] as const;
    for (const [label, cells] of expected) {
      for (const [step, cell] of Array.from(cells).entries()) {
        const word = cell === "C" ? "computed" : cell === "r" ? "reused" : "forecast";
        expect(count(html, `<title>${label}, step ${step}: ${word}</title>`)).toBe(1);
      }
    }
    expect(html.match(/, step \d+: /g)).toHaveLength(3 * STEPS);
    expect([...html.matchAll(/(\d) of 6<\/td>/g)].map(([, computed]) => computed)).toEqual(["4", "3", "6"]);
    expect(html).toContain("<desc>computed at 0, 3, 5; reused at 1–2; forecast at 4</desc>");
  });

  it("sets what was expected beside what was measured, and the plan beside what it was chosen from", () => {
    const { text = "" } = /<h2>How the plan was chosen<\/h2>(?<text>.*?)<\/section>/s.exec(html)?.groups ?? {};
    expect([...text.matchAll(/<dt>(.*?)<\/dt><dd>(.*?)<\/dd>/g)].map(([, name, value]) => [name, value])).toEqual([
      ["expected from the calibration", "0.0300 ± 0.00200"],
      ["measured on this model", "0.0312 (8 samples)"],
    ]);
    expect(
      [...text.matchAll(/<tr><th scope="row">(.*?)<\/th><td>(.*?)<\/td><td>(.*?)<\/td><td>(.*?)<\/td>/g)].map((cells) => cells.slice(1)),
    ).toEqual([
      ["<b>path; closed loop</b> <small>chosen</small>", "50\u00a0%", "0.0280 ± 0.00200", "10"],
      ["fora", "50\u00a0%", "0.110", "1"],
    ]);
  });

  it("draws the curves from the step where they begin, without holes in their data", () => {
    const lines = [...html.matchAll(/<path class="lag-(\d)" d="M([\d. L]+)"\/>/g)].map(([, lag, points = ""]) => [
      lag,
      points.split("L").length,
    ]);
    expect(lines).toEqual([
      ["1", 5],
      ["2", 3],
    ]);
    expect(html).toContain("step 1 against step 0: 0.500 ± 0.100");
    expect(html).toContain("step 2 against step 0: 0.200<");
    expect(html).toContain("threshold α = 0.08");
  });

  it("draws a band where there are confidence intervals: above and below the line, not below 0", () => {
    const band = /<figure>.*?<path class="band" d="M([\d. L]+)Z"\/>/s.exec(html)?.[1] ?? "";
    const corners = band.split("L").map((corner) => corner.split(" ").map(Number));
    expect(corners).toHaveLength(2 * 5);
    const zero = Number(/<path d="M40 ([\d.]+)H390"\/><text[^>]*>0</.exec(html)?.[1]);
    const [top, bottom] = [corners.slice(0, 5), corners.slice(5).reverse()].map((edge) => edge.map(([, y = NaN]) => y));
    // Step 2: 0.1 ± 0.2 ends at 0; step 3: 0.1 ± 0 has no width.
    expect(bottom?.[1]).toBe(zero);
    expect(top?.[2]).toBe(bottom?.[2]);
    expect(top?.every((y, i) => y <= (bottom?.[i] ?? NaN))).toBe(true);
    expect(html).toContain("95 % confidence interval over samples");
    expect(renderReport({ ...full, curves: new Map([["attn", { mean: [[0, 0.5]] }]]) })).not.toContain("confidence interval");
  });

  it("adds up the work", () => {
    const work = html.slice(html.indexOf("<h2>Work and size"), html.indexOf("<h2>Measured times"));
    const cells = [...work.matchAll(/<td>(.*?)<\/td>/g)].map(([, cell = ""]) => cell.replace("\u00a0", " "));
    expect(cells).toEqual([
      ...["12.0 MMAC", "29 %", "8.00 MMAC"],
      ...["24.0 MMAC", "57 %", "18.0 MMAC"],
      ...["6.00 MMAC", "14 %", "8.00 MMAC"],
      ...["42.0 MMAC", "100 %", "34.0 MMAC"],
    ]);
  });

  it("escapes whatever comes from outside", () => {
    const hostile = `<script>alert("1")</script>'&`;
    const data: ReportData = {
      ...full,
      title: hostile,
      sampler: hostile,
      guidance: hostile,
      policy: { name: hostile, options: { [hostile]: hostile } },
      settings: { [hostile]: hostile },
      versions: { [hostile]: hostile },
      branches: [{ site: hostile, group: hostile, uncached: 1, emitted: 1 }],
      cells: new Map([[hostile, row("CrfCCC")]]),
      curves: new Map([[hostile, { mean: [[0, 1]] }]]),
      times: full.times && { ...full.times, device: hostile },
      verify: full.verify && { ...full.verify, checks: [{ name: hostile, relL2: 1, limit: 0, ok: false }] },
      pictures: full.pictures && { ...full.pictures, caption: hostile },
    };
    const page = renderReport(data);
    expect(page).not.toContain("<script");
    expect(page).not.toContain('alert("1")');
    expect(page.match(/&lt;script&gt;alert\(&quot;1&quot;\)&lt;\/script&gt;&#39;&amp;/g)?.length).toBeGreaterThan(20);
    expect(unbalanced(page)).toEqual([]);
  });

  it("says loudly when a check failed", () => {
    expect(html).not.toMatch(/class="failed"/);
    const checks = [{ name: "loop", relL2: 0.5, limit: 1e-5, ok: false }];
    const page = renderReport({ ...full, verify: full.verify && { ...full.verify, checks } });
    expect(page).toContain('<p class="failed">1 of 1 checks failed');
    expect(page).toContain('<b class="failed">failed</b>');
  });

  it("copes with extremes", () => {
    const page = renderReport({
      ...full,
      steps: 1,
      cells: new Map([["attn-0", row("C")]]),
      curves: new Map([["attn", { mean: [[0]] }]]),
      verify: { checks: [], fidelity: { relL2: 0, psnr: Infinity, samples: 1 } },
    });
    expect(sections(page)).not.toContain("How much the parts change");
    expect(page).toContain("the results are equal");
    expect(page).not.toMatch(/NaN|Infinity/);
  });

  it("gives the same bytes twice", () => {
    expect(renderReport(structuredClone(full))).toBe(html);
  });
});

describe("numbers", () => {
  it.each([
    [formatQuantity(1.26e9, "MAC"), "1.26 GMAC"],
    [formatQuantity(17_781_248, "B"), "17.8 MB"],
    [formatQuantity(999_600, "B"), "1.00 MB"],
    [formatQuantity(512, "B"), "512 B"],
    [formatDuration(0.84), "0.840 ms"],
    [formatDuration(345.2), "345 ms"],
    [formatDuration(999.7), "1.00 s"],
    [formatDuration(200_400), "3 min 20 s"],
    [formatNumber(0), "0"],
    [formatNumber(3), "3"],
    [formatNumber(0.0312), "0.0312"],
    [formatNumber(4.1e-7), "4.10 × 10⁻⁷"],
    [formatNumber(-12.34), "−12.3"],
    [formatNumber(1234.5), "1,235"],
    [formatNumber(Infinity), "∞"],
    [formatCount(19_350), "19,350"],
    [formatCount(1_234_567), "1,234,567"],
    [formatRatio(1.9), "1.90×"],
    [formatPercent(0.0312), "3.1 %"],
    [formatPercent(0.512), "51 %"],
    [formatPercent(0.0004), "0.04 %"],
    [formatPercent(1e-7), "under 0.01 %"],
    [formatPercent(0), "0 %"],
  ])("%s", (actual, expected) => {
    expect(plain(actual)).toBe(expected);
  });

  it("finds round ticks that reach the maximum", () => {
    expect(ticks(0.52, 5)).toEqual([0, 0.2, 0.4, 0.6]);
    expect(ticks(0.3, 3)).toEqual([0, 0.1, 0.2, 0.3]);
    expect(ticks(49, 5)).toEqual([0, 10, 20, 30, 40, 50]);
    expect(ticks(0, 5)).toEqual([0]);
  });
});

describe("schedulePlot", () => {
  const rows = [
    { label: "attn", branches: 28, cells: row("CrfC") },
    { label: "<b>", branches: 1, cells: row("CCri") },
  ];
  const plot = { title: "fora & co", subtitle: "half", steps: 4 };

  it("has every cell once, with its step, and words for the kinds of cell", () => {
    const svg = schedulePlot({ ...plot, rows });
    expect([...svg.matchAll(/<title>([^<]*, step \d: [^<]*)<\/title>/g)].map(([, title]) => title)).toEqual([
      ...["computed", "reused", "forecast", "computed"].map((word, step) => `attn, step ${step}: ${word}`),
      ...["computed", "computed", "reused", "not guided"].map((word, step) => `&lt;b&gt;, step ${step}: ${word}`),
    ]);
    for (const text of ["fora &amp; co", "attn × 28", "2 of 4", ">not guided<"]) expect(svg).toContain(text);
    expect(svg).not.toContain("<b>");
    expect(unbalanced(svg)).toEqual([]);
  });

  it("draws cells that compute some tokens as tall as computed ones, filled up to their share", () => {
    const some = { kind: "forecast", computed: 0.25 } as const;
    const cells = [...row("C"), some, { ...some, kind: "reuse" as const }, ...row("r")];
    const svg = schedulePlot({ ...plot, rows: [{ label: "mlp", branches: 1, cells }] });
    const at = (step: number): string => new RegExp(`<g><title>mlp, step ${step}: [^<]*</title>.*?</g>`).exec(svg)?.[0] ?? "";
    expect(plain(at(1))).toContain("25 % of the tokens computed, the others forecast");
    expect([...at(1).matchAll(/class="(\w+)" x="25%" y="(\d+)" width="25%" height="(\d+)"/g)].map(([, ...parts]) => parts)).toEqual([
      ["forecast", "0", "24"],
      ["compute", "18", "6"],
    ]);
    expect(at(2)).toContain('class="reuse"');
    for (const text of [">some tokens<", ">forecast<", ">reused<", "1.50 of 4", "computed at 0; some tokens at 1–2; reused at 3"])
      expect(svg).toContain(text);
    expect(unbalanced(svg)).toEqual([]);
  });

  it("draws rows closer where there are many, and gaps where there is room", () => {
    const heightOf = (svg: string): number => Number(/^<svg [^>]*height="(\d+)"/.exec(svg)?.[1]);
    const many = Array.from({ length: 56 }, (_, i) => ({ label: `attn-${i}`, branches: 1, cells: row("CrfC") }));
    expect(heightOf(schedulePlot({ ...plot, rows: many }))).toBeLessThan(1200);
    const long = { label: "attn", branches: 1, cells: row("C".repeat(1000)) };
    expect(schedulePlot({ ...plot, rows: [long], steps: 1000 })).not.toContain('class="gaps"');
    expect(schedulePlot({ ...plot, rows })).toContain('class="gaps"');
  });

  it("becomes a PNG picture, its cells in their colours and its texts there", () => {
    const svg = schedulePlot({ ...plot, rows });
    const png = rasterise(svg);
    const { width, data, channels } = decode(png);
    const colourAt = (x: number, y: number): string =>
      [0, 1, 2].map((i) => (data[(2 * y * width + 2 * x) * channels + i] ?? 0).toString(16).padStart(2, "0")).join("");
    const [, x = NaN, y = NaN] = (/class="gaps" x="(\d+)" y="(\d+)"/.exec(svg) ?? []).map(Number);
    // The middles of four cells of 225 units, near their feet, and above the one that is lower.
    expect([0, 1, 2, 3].map((step) => colourAt(x + 225 * step + 112, y + 20))).toEqual(["24588f", "b9c9da", "c98a2b", "24588f"]);
    expect(colourAt(x + 225 + 112, y + 4)).toBe("fdfdfb");
    const title = Array.from({ length: 100 * 20 }, (_, i) => colourAt(40 + (i % 100), 24 + Math.floor(i / 100)));
    expect(title.filter((colour) => colour === "1d2024").length).toBeGreaterThan(50);
    expect(Buffer.from(rasterise(svg)).equals(png)).toBe(true);
  });
});

describe("samplerPlot", () => {
  const row = (k: number, timestep: number) => ({
    timestep,
    inputScale: 1,
    m: { x: 0, out: 1 },
    next: { x: [{ step: k, weight: 1 }], m: [{ step: k, weight: -0.5 }], noise: 0 },
  });
  const table = { name: "<b>", prediction: "flow", initialScale: 1, rows: [900, 500, 100].map((time, k) => row(k, time)) } as const;

  it("draws times and weights to scale, and no line for what is not there", () => {
    const svg = samplerPlot(table);
    const paths = [...svg.matchAll(/<path class="(\w+)" d="(M[\d. L]+L[\d. L]+)"\/>/g)].map(([, name, points]) => [name, points]);
    // Times from 0 to 1000, weights from -0.5 to 1, over heights from 212 to 26.
    expect(paths).toEqual([
      ["time", "M40 44.6L215 119L390 193.4"],
      ["latent", "M40 26L215 26L390 26"],
      ["current", "M40 212L215 212L390 212"],
    ]);
    expect(svg).toContain("prediction, step 1: −0.500");
    expect(svg).not.toContain("<b>");
    expect(unbalanced(svg)).toEqual([]);
  });

  it("draws noise levels where the table has them", () => {
    const svg = samplerPlot({ ...table, rows: table.rows.map((row, k) => ({ ...row, sigma: 1 - k / 2 })) });
    // From 0 to 1.
    expect(svg).toContain('<path class="sigma" d="M40 26L215 119L390 212"/>');
    expect(samplerPlot(table)).not.toContain("Noise levels");
    expect(unbalanced(svg)).toEqual([]);
  });

  it("tells earlier predictions and noise apart", () => {
    const [first, second] = table.rows;
    const m = [...(second?.next.m ?? []), { step: 0, weight: 0.25 }];
    const svg = samplerPlot({
      ...table,
      rows: [first, second].flatMap((row) => (row ? [{ ...row, next: { ...row.next, m, noise: 0.125 } }] : [])),
    });
    expect(svg).toContain("earlier predictions, step 1: 0.250");
    expect(svg).toContain("noise, step 0: 0.125");
  });

  it("copes with one row", () => {
    expect(samplerPlot({ ...table, rows: table.rows.slice(0, 1) })).not.toMatch(/NaN|Infinity/);
  });

  it.each([
    [-0.31, 1.2, [-0.5, 0, 0.5, 1, 1.5]],
    [-3, -1, [-3, -2.5, -2, -1.5, -1]],
    [2, 2, [2]],
  ])("has round levels from %d to %d", (min, max, levels) => {
    expect(ticksBetween(min, max, 5)).toEqual(levels);
  });
});

describe("frontPlot", () => {
  const measures = [
    { share: 0.5, error: 0.001, interval: 0.0002 },
    { share: 0.25, error: 0.01 },
  ];
  const svg = frontPlot({
    title: "Error over compute",
    subtitle: "12 steps",
    chosen: measures,
    published: new Map([["fora", [{ share: 0.5, error: 0.1 }, { share: 0.25, error: 0 }, { share: 0.1, error: Infinity }]]]), // prettier-ignore
  });

  it("puts equal ratios at equal distances, and leaves out what has no place", () => {
    const places = [...svg.matchAll(/<circle cx="([\d.]+)" cy="([\d.]+)" r="4"><title>(\w+)/g)].map(([, x, y, name]) => ({
      x: Number(x),
      y: Number(y),
      name,
    }));
    const chosen = places.filter(({ name }) => name === "plan");
    const [fora, ...others] = places.filter(({ name }) => name === "fora");
    expect(others).toEqual([]);
    const [half, quarter] = chosen;
    expect(fora?.x).toBe(half?.x);
    expect((half?.y ?? 0) - (quarter?.y ?? 0)).toBeCloseTo((quarter?.y ?? 0) - (fora?.y ?? 0), 0);
    expect(unbalanced(svg)).toEqual([]);
    expect(svg).not.toMatch(/NaN|undefined|Infinity/);
  });

  it("has round levels that hold all values", () => {
    expect(logarithmicTicks(0.003, 0.04)).toEqual([0.002, 0.005, 0.01, 0.02, 0.05]);
    expect(logarithmicTicks(1e-5, 0.04)).toEqual([1e-5, 1e-4, 1e-3, 0.01, 0.1]);
    expect(logarithmicTicks(0.2, 0.2)).toEqual([0.2]);
    expect(logarithmicTicks(NaN, 1)).toEqual([1]);
  });
});
