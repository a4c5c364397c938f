/** The data of a report. Every part beyond the compilation itself is optional. */
import type { Bench, Manifest, Verification } from "../artifact/index.js";
import type { Comparison, MeasuredCurve } from "../planning/index.js";

/** In the order of a legend. */
export const CELL_KINDS = ["compute", "reuse", "forecast", "idle"] as const;

/** What a branch does at a step: runs, reads its latest value, reads a weighted sum of earlier values, or is not needed. */
export type CellKind = (typeof CELL_KINDS)[number];

/** A cell of a schedule, as it is drawn. */
export interface DrawnCell {
  readonly kind: CellKind;
  /** The share of the branch's tokens that is computed: those of a cell that reads earlier values may be some. */
  readonly computed: number;
}

export interface ReportBranch {
  readonly site: string;
  /** The plan key of its group of branches. */
  readonly group: string;
  /** Multiply-accumulates of a whole run, guidance included: without reuse, and with it. */
  readonly uncached: number;
  readonly emitted: number;
}

/** The checks, and how far the result is from the one without caching. */
export type ReportVerify = Pick<Verification, "checks" | "fidelity">;

export interface ReportPictures {
  /** PNG files of one size. */
  readonly uncached: Uint8Array;
  readonly cached: Uint8Array;
  /** The absolute difference, and the difference that is drawn white. */
  readonly difference?: { readonly png: Uint8Array; readonly white: number } | undefined;
  readonly caption: string;
}

export type Facts = Readonly<Record<string, string | number | boolean>>;

export interface ReportData {
  /** The model's name. */
  readonly title: string;
  readonly sampler: string;
  readonly steps: number;
  /** In words: "1.5, both halves in one batch". */
  readonly guidance: string;
  /** Absent where nothing was planned. */
  readonly policy?: { readonly name: string; readonly options: Facts } | undefined;
  /** Further settings, such as batch, seed and conditions. */
  readonly settings?: Facts | undefined;
  /** Programs and files by name, with their versions. */
  readonly versions: Facts;
  readonly branches: readonly ReportBranch[];
  /** A row of `steps` cells for every branch that a plan covers. */
  readonly cells: ReadonlyMap<string, readonly DrawnCell[]>;
  /** By group. */
  readonly curves?: ReadonlyMap<string, MeasuredCurve> | undefined;
  /** The change below which the policy reuses, if it has such a rule. */
  readonly alpha?: number | undefined;
  /** Of a whole run; `bound` = uncached / emitted. */
  readonly macs: Readonly<Manifest["macs"]>;
  readonly nodes: Readonly<Manifest["nodes"]>;
  readonly bytes: { readonly model: number; readonly data: number };
  readonly cachePeakBytes: number;
  readonly times?: Bench | undefined;
  readonly verify?: ReportVerify | undefined;
  /** Where the plan was found by trying several. */
  readonly comparison?: Comparison | undefined;
  readonly pictures?: ReportPictures | undefined;
}
