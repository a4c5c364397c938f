/**
 * What is taken from outside, at most: every limit in one place, with its reason. Nobody's real files come near them; what is above is a
 * mistake or a trap, and is refused before it costs time or memory. Sizes are in bytes.
 */

const MIB = 2 ** 20;

/** JSON files: of plans, recipes and schedulers, the longest are plans of thousands of steps, with some 20 MB. */
export const JSON_BYTES = 64 * MIB;

/** SHA256SUMS: an artifact has a line for each of its files, a hundred bytes each. */
export const SUMS_BYTES = MIB;

/** Traces grow with the square of the steps: 140 MB for 250 steps of 28 blocks. Of twice this size V8 makes no string. */
export const TRACE_BYTES = 256 * MIB;

/** Lists and objects inside one another in JSON: no format here has ten, and parsers that recurse end at some thousands. */
export const JSON_DEPTH = 100;

/** Files of arrays (`.npy`, `.npz`, `.pt`), as they are held in memory. Node reads no more in one call. */
export const ARRAY_BYTES = 2 ** 31 - 1;

/** The header of a `.npy` file. numpy itself reads no more than 10,000 bytes unless it is told to. */
export const NPY_HEADER_BYTES = 2 ** 16;

/** What the compressed entries of a ZIP file make together: deflate writes up to a thousand times what it reads. */
export const INFLATED_BYTES = 256 * MIB;

/** The pickle in a torch file names tensors and does not hold them: it takes some 150 bytes for each, and a byte of it can make 200. */
export const PICKLE_BYTES = 2 * MIB;

/** Letters of the keys that lead to a tensor in a torch file. As the keys of each of many tensors they multiply. */
export const TENSOR_NAME_LENGTH = 1000;

/** Axes of a tensor: numpy has 64 at most. */
export const MAX_RANK = 64;

/** Constants that passes look into: shapes, scales and indices are small, and weights are copied without being read. */
export const READ_BYTES = 256 * MIB;

/** Steps of a sampler: the length of the longest noise schedule in use (Improved DDPM). */
export const MAX_STEPS = 4000;

/** Rows of a sampler's table, which are the steps of a plan: a Runge–Kutta step evaluates the network four times. */
export const MAX_ROWS = 4 * MAX_STEPS;

/** Training times of a scheduler: their schedule is laid out in memory. Of those in use the longest has `MAX_STEPS`. */
export const MAX_TRAIN_TIMES = 1e4;

/** The weight of a value in a sum. A float has a relative error of 6e-8, so that of a greater multiple nothing would be left. */
export const MAX_WEIGHT = 1e6;

/** Rows of a batch: its noise, conditions and results are held in memory. */
export const MAX_BATCH = 2 ** 16;

/** Samples of sound a second: recorders reach 768,000. */
export const MAX_RATE = 1e6;

/** Further networks of a run: an ensemble of experts has three (eDiff-I), and each of them is read and bound. */
export const MAX_NETWORKS = 15;
