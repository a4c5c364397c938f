/** Texts for people: errors, numbers, tables, progress; and the version of this program. */
export * from "./diagnostics.js";
export { formatCount, formatDuration, formatNumber, formatPercent, formatQuantity, formatRatio } from "./numbers.js";
export { oneLine, printable } from "./printable.js";
export { type Progress, silent } from "./progress.js";
export { counted, table } from "./tables.js";
export { METADATA_PREFIX, VERSION } from "./version.js";
