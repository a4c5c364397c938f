/** The disk: JSON, arrays and archives in, whole files and folders out. */
export { containedFile } from "./contained.js";
export { linked } from "./digest.js";
export { makeFolder, prepareFile, writeWhole } from "./disk.js";
export { type FolderKind, prepareFolder, replaceFolder } from "./folders.js";
export { jsonText, readJson } from "./json.js";
export { npyBytes, readNpy } from "./npy.js";
export { npzBytes, readNpz } from "./npz.js";
export { placeBeside, tidy } from "./places.js";
export { assertUnchanged, type Stamps, stampsOf } from "./stamps.js";
export { damagesIn, readSums, SUMS, type Sums, writeSummed, writeSums } from "./sums.js";
export { readTorchFile } from "./torch-file.js";
