/** The disk: JSON, arrays and archives in, whole files and folders out. */
export { containedFile } from "./contained.js";
export { fileDigest, linked } from "./digest.js";
export { assertFree, makeFolder, writeWhole } from "./disk.js";
export { assertReplaceable, type FolderKind, replaceFolder } from "./folders.js";
export { jsonText, readJson } from "./json.js";
export { npyBytes, readNpy } from "./npy.js";
export { npzBytes, readNpz } from "./npz.js";
export { readTorchFile } from "./torch-file.js";
