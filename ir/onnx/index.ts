/** The door of the folder: ONNX files in and out. */
export { WrittenData } from "./data-file.js";
export { readModel } from "./read.js";
export { encodeModel, writeModel, type EncodeOptions, type WriteOptions, type WriteResult } from "./write.js";
