/** What a report is made of: plain data, every part beyond the compilation itself optional. */

/** What a branch does at a step: runs, reads its latest value, reads a weighted sum of earlier values, or is not needed. */
export type CellKind = "compute" | "reuse" | "forecast" | "idle";

export interface ReportBranch {
  readonly site: string;
  /** The key of a plan that speaks of all that decide together with it. */
  readonly group: string;
  /** Multiply-accumulates of a whole run, guidance included: without reuse, and with it. */
  readonly uncached: number;
  readonly emitted: number;
}

export interface Timing {
  readonly loadMs: number;
  readonly medianMs: number;
  /** Distance between the quartiles. */
  readonly iqrMs: number;
  readonly rssBytes: number;
}

export interface ReportTimes {
  readonly device: string;
  /** Absent: as many as the runtime takes. */
  readonly threads?: number | undefined;
  readonly runs: number;
  readonly artifact: Timing;
  /** The whole run as one model, nothing reused. */
  readonly uncached: Timing;
  /** The original step, called once a step. */
  readonly loop: Timing;
}

export interface ReportVerify {
  readonly checks: readonly { readonly name: string; readonly relL2: number; readonly limit: number; readonly ok: boolean }[];
  /** The result against the one without caching. */
  readonly fidelity: { readonly relL2: number; readonly psnr: number; readonly samples: number };
}

/** The plan and others for the same budget, on the calibration's samples. Errors: relative L2 of the final latent, means. */
export interface ReportComparison {
  readonly error: number;
  /** Half-width of the error's 95 % confidence interval. */
  readonly interval?: number | undefined;
  /** By name, the best first. */
  readonly methods: ReadonlyMap<string, ReportMethod>;
}

export interface ReportMethod {
  /** Of the branches' compute, that is left. */
  readonly share: number;
  readonly error: number;
  readonly interval?: number | undefined;
  readonly samples: number;
  readonly isChosen: boolean;
}

export interface ReportPictures {
  /** PNG files of one size. */
  readonly uncached: Uint8Array;
  readonly cached: Uint8Array;
  /** The absolute difference, and the difference that is drawn white. */
  readonly difference?: { readonly png: Uint8Array; readonly white: number } | undefined;
  readonly caption: string;
}

export type Facts = Readonly<Record<string, string | number | boolean>>;

/** `[lag − 1][step]`, the mean relative L1 change since `lag` steps before; entries with step < lag are not looked at. */
export interface ReportCurve {
  readonly mean: readonly (readonly number[])[];
  /** Half-widths of the mean's 95 % confidence intervals over samples. */
  readonly confidence?: readonly (readonly number[])[] | undefined;
}

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
  /** A row of `steps` cells for every branch that a plan speaks of. */
  readonly cells: ReadonlyMap<string, readonly CellKind[]>;
  /** By group. */
  readonly curves?: ReadonlyMap<string, ReportCurve> | undefined;
  /** The change below which the policy reuses, if it has such a rule. */
  readonly alpha?: number | undefined;
  /** Of a whole run; `bound` = uncached / emitted. */
  readonly macs: { readonly uncached: number; readonly emitted: number; readonly bound: number };
  readonly nodes: { readonly step: number; readonly uncached: number; readonly emitted: number };
  readonly bytes: { readonly model: number; readonly data: number };
  readonly cachePeakBytes: number;
  readonly times?: ReportTimes | undefined;
  readonly verify?: ReportVerify | undefined;
  /** Where the plan was found by trying several. */
  readonly comparison?: ReportComparison | undefined;
  readonly pictures?: ReportPictures | undefined;
}
