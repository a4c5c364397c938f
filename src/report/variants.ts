/** The page that compares the artifacts of one build: what each makes, at which cost and error, and what they have in common. */
import { join } from "node:path";
import { type Bench, dataBytes, type Manifest, readManifest, sizesOf, type Verification } from "../artifact/index.js";
import { counted, formatDuration, formatPercent, formatQuantity, formatRatio } from "../words/index.js";
import { type Content, markup, type Markup } from "./html.js";
import { device, facts, page, quantity, section, table } from "./page.js";

export interface VariantsReport {
  readonly title: string;
  readonly variants: readonly VariantColumns[];
  /** The bytes of the weights of all of them on disk. */
  readonly dataBytes: number;
}

/** A variant: its name is the folder of its own report. */
interface VariantColumns {
  readonly name: string;
  readonly manifest: Manifest;
  readonly bytes: { readonly model: number; readonly data: number };
  readonly verification: Pick<Verification, "ok" | "fidelity">;
  readonly bench?: Bench | undefined;
}

type Results = Pick<VariantColumns, "verification" | "bench">;

/** Collects the data of the page. Throws what reading manifests throws. */
export function variantsReportOf(title: string, folder: string, results: ReadonlyMap<string, Results>): VariantsReport {
  const variants = Array.from(results, ([name, { verification, bench }]) => {
    const own = join(folder, name);
    return { name, manifest: readManifest(own), bytes: sizesOf(own), verification, bench };
  });
  return { title, variants, dataBytes: dataBytes(variants.map(({ name }) => join(folder, name))) };
}

/** The whole page. The same data gives the same bytes. */
export function renderVariants({ title, variants, dataBytes: data }: VariantsReport): string {
  const failed = variants.filter(({ verification }) => !verification.ok);
  const isOneFile = variants.every(({ bytes }) => bytes.data === data);
  const models = variants.reduce((sum, { bytes }) => sum + bytes.model, 0);
  const headline = `${counted(variants.length, "variant")}, ${isOneFile ? "one data file" : "data files"} of ${formatQuantity(data, "B")}`;
  const benches = variants.flatMap(({ bench }) => bench ?? []);
  return page(
    `${title}: ${headline}`,
    [
      markup`<header>
<p class="kicker">smoothcc report · ${title}</p>
<h1>${headline}</h1>
<p class="lead">One model for each variant; each can be used without the others, and has a report of its own.</p>
${failed.length > 0 ? markup`<p class="failed">Checks failed: do not rely on ${failed.map(({ name }) => name).join(", ")}.</p>` : undefined}
</header>`,
      section(
        "What they make",
        "The result has these sizes. Error is the relative L2 distance from the result without reuse, same noise.",
        table(
          ["variant", "result", "steps", "error", "checks"],
          rows(variants, (one) => [...madeBy(one.manifest), ...checked(one)]),
        ),
      ),
      section(
        "What they cost",
        "Multiply-accumulates (MAC) of a whole run, and what they are without reuse; the bound is how much faster that can be at most.",
        table(
          ["variant", "MAC", "without reuse", "bound", "kept answers", "model file"],
          rows(variants, ({ manifest: { macs, cache }, bytes }) => [
            quantity(macs.emitted),
            quantity(macs.uncached),
            formatRatio(macs.bound),
            formatQuantity(cache.peakBytes, "B"),
            formatQuantity(bytes.model, "B"),
          ]),
        ),
        facts([
          [isOneFile ? "data file, the weights of all" : "data files, the weights", formatQuantity(data, "B")],
          ["model files together", formatQuantity(models, "B")],
        ]),
      ),
      benches[0] &&
        section(
          "Measured times",
          markup`One whole run; the median of ${counted(benches[0].runs, "run")} on ${device(benches[0])}. Memory is the most that the process had.`,
          table(
            ["variant", "time", "without reuse", "faster", "loading", "memory"],
            rows(variants, ({ bench }) => (bench ? timesOf(bench) : [])),
          ),
        ),
    ],
    LINKS,
  );
}

const LINKS = markup`main a { color: var(--compute); }
`;

function rows(variants: readonly VariantColumns[], cells: (variant: VariantColumns) => readonly Content[]): Markup {
  return markup`${variants.map(
    (one) => markup`
<tr><th scope="row"><a href="${hrefOf(one.name)}/report.html">${one.name}</a></th>${cells(one).map((cell) => markup`<td>${cell}</td>`)}</tr>`,
  )}`;
}

/** A path of names as a relative address. */
function hrefOf(name: string): string {
  return name.split("/").map(encodeURIComponent).join("/");
}

function madeBy({ outputs, steps }: Manifest): readonly Content[] {
  const result = outputs.at(-1);
  return [result ? markup`${result.name} <small>${result.shape.join(" × ")}</small>` : "", steps];
}

function checked({ verification: { ok, fidelity } }: VariantColumns): readonly Content[] {
  return [formatPercent(fidelity.relL2), ok ? "passed" : markup`<b class="failed">failed</b>`];
}

function timesOf({ artifact, uncached, speedup }: Bench): readonly Content[] {
  return [
    formatDuration(artifact.medianMs),
    formatDuration(uncached.medianMs),
    formatRatio(speedup.measured),
    formatDuration(artifact.loadMs),
    formatQuantity(artifact.rssBytes, "B"),
  ];
}
