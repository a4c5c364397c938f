/** File ranges: what the reader and the writer share. */
export { problemOf } from "../open-file.js";
export type { ConvertedRange, FileRange } from "../tensor.js";
