// Runs an artifact in a worker thread, so that this one goes on answering: it draws a bar, and Ctrl-C stops the worker
// between two parts.
//
//   node node/run.js DIR --input class_labels=18 --output picture.png [--seed 1]
//
// Needs onnxruntime-node. A run that was compiled with --segments is played in parts, with one of them in memory at a time.
import { Buffer } from "node:buffer";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { Worker } from "node:worker_threads";
import { crc32, deflateSync } from "node:zlib";
import { feedsOf, isPicture, pixelsOf } from "../artifact.js";

// Before the worker starts, which sees a copy: else ONNX Runtime keeps a store of what it runs, to send it to its maker.
process.env.ORT_DISABLE_TELEMETRY = "1";

const USAGE = "node node/run.js DIR --input NAME=VALUE|NAME=FILE.npy --output FILE.png|FILE.npy [--seed N]";
const text = { type: "string" };

try {
  main();
} catch (error) {
  stop(error.message);
}

function main() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { input: { ...text, multiple: true }, seed: text, output: { ...text, short: "o" } },
  });
  const { input = [], seed = "0", output = "" } = values;
  const [folder] = positionals;
  if (folder === undefined || !/\.(png|npy)$/.test(output)) throw new Error(USAGE);
  const manifest = JSON.parse(readFileSync(join(folder, "manifest.json"), "utf8"));
  const { elem, shape } = manifest.outputs.at(-1);
  if (output.endsWith(".png") && !isPicture(elem, shape))
    throw new Error(`the result [${shape.join(", ")}] is no picture: write it as .npy`);
  const inputs = feedsOf(manifest, Object.fromEntries(input.map(parseInput)), Number(seed));

  const worker = new Worker(new URL("./worker.js", import.meta.url), { workerData: { folder, manifest } });
  worker.on("error", ({ message }) => stop(`\n${message}`));
  worker.on("message", ({ done, rows, result, isStopped }) => {
    if (rows !== undefined) process.stderr.write(`\r[${"#".repeat((40 * done) / rows).padEnd(40, ".")}] ${done}/${rows}`);
    if (isStopped) stop("\nstopped", 130);
    if (result === undefined) return;
    process.stderr.write("\n");
    writeFileSync(output, output.endsWith(".npy") ? npy(result) : png(pixelsOf(result, manifest.recipe)));
  });
  // Not `worker.terminate()`: where the runtime is at work, that aborts the process.
  process.once("SIGINT", () => worker.postMessage({ isStopped: true }));
  worker.postMessage({ inputs });
}

function stop(message, code = 1) {
  console.error(message);
  process.exitCode = code;
}

/** `name=1,2,3` or `name=file.npy`. */
function parseInput(pair) {
  const at = pair.indexOf("=");
  const value = pair.slice(at + 1);
  if (at < 1 || value === "") throw new Error(`--input ${pair}: write NAME=VALUE`);
  return [pair.slice(0, at), value.endsWith(".npy") ? parseNpy(value) : value.split(",").map(Number)];
}

/** The numbers of a .npy file (numpy's NEP 1) in C order, as an array of its type. */
function parseNpy(file) {
  const bytes = readFileSync(file);
  const start = bytes[6] === 1 ? 10 + bytes.readUInt16LE(8) : 12 + bytes.readUInt32LE(8);
  const header = bytes.toString("latin1", 10, start);
  const arrays = { f4: Float32Array, f8: Float64Array, f2: Uint16Array, i8: BigInt64Array, i4: Int32Array, u1: Uint8Array, b1: Uint8Array };
  const Elements = arrays[/'descr': '[<|](\w\d)'/.exec(header)?.[1]];
  if (!Elements || header.includes("'fortran_order': True")) throw new Error(`${file} is not one of the .npy files that are read here`);
  return new Elements(Uint8Array.from(bytes.subarray(start)).buffer);
}

function npy({ data, dims }) {
  const isBytes = data instanceof Uint8Array;
  const fields = `{'descr': '${isBytes ? "|u1" : "<f4"}', 'fortran_order': False, 'shape': (${dims.map((size) => `${size},`).join("")})}`;
  const header = Buffer.from(`\x93NUMPY\x01\0\0\0${fields.padEnd(117)}\n`, "latin1");
  header.writeUInt16LE(header.length - 10, 8);
  return Buffer.concat([header, isBytes ? data : new Uint8Array(Float32Array.from(data).buffer)]);
}

/** RGBA pixels as a PNG. */
function png({ width, height, pixels }) {
  const chunk = (kind, data) => {
    const body = Buffer.concat([Buffer.from(kind), data]);
    const ends = Buffer.alloc(8);
    ends.writeUInt32BE(data.length, 0);
    ends.writeUInt32BE(crc32(body), 4);
    return Buffer.concat([ends.subarray(0, 4), body, ends.subarray(4)]);
  };
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  // Eight bits for each of red, green, blue and opacity.
  header.set([8, 6], 8);
  // Each row begins with the number of its filter, 0 for none.
  const rows = Array.from({ length: height }, (_, y) => [Buffer.of(0), Buffer.from(pixels.subarray(4 * width * y, 4 * width * (y + 1)))]);
  const data = deflateSync(Buffer.concat(rows.flat()));
  return Buffer.concat([
    Buffer.from("\x89PNG\r\n\x1a\n", "latin1"),
    chunk("IHDR", header),
    chunk("IDAT", data),
    chunk("IEND", Buffer.of()),
  ]);
}
