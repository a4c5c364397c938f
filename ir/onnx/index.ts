/** Reading and writing ONNX files: the public interface of this folder. */
export { WrittenData } from "./data-file.js";
export { definesFunctions } from "./extra.js";
export { readModel, readSubgraph } from "./read.js";
export { SharedData } from "./shared-data.js";
export { isWithin } from "./tensors.js";
export { encodeModel, writeModel, type EncodeOptions, type WriteOptions, type WriteResult } from "./write.js";
