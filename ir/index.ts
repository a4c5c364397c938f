/** The compiler's IR as a library: read, write, lift, print, parse, check, and what passes are made of. */
export * from "./analysis.js";
export * from "./build.js";
export * from "./check.js";
export * from "./cost.js";
export { CompilerError, type ExitCode, type Place } from "./diagnostics.js";
export { hasCudaKernel } from "./cuda.js";
export * from "./digest.js";
export * from "./dit.js";
export * from "./graph.js";
export * from "./lift/index.js";
export { encodeModel as encode, readModel as read, writeModel as write, WrittenData } from "./onnx/index.js";
export type { EncodeOptions, WriteOptions, WriteResult } from "./onnx/index.js";
export * from "./ops.js";
export * from "./rewrite.js";
export * from "./tensor.js";
export * from "./text.js";
export * from "./types.js";
