// The worker of run.js. In comes { inputs }, of one run, or { isStopped }; out go { done, rows } after each part, and { result } in the end.
import { join } from "node:path";
import { parentPort, workerData } from "node:worker_threads";
import { InferenceSession, Tensor } from "onnxruntime-node";
import { play, sessionOptions } from "../artifact.js";

const { folder, manifest } = workerData;
const stop = new AbortController();
const open = (model) => InferenceSession.create(join(folder, model), sessionOptions(manifest));
const told = (done, rows) => parentPort.postMessage({ done, rows });

// What is thrown in it is the main thread's event `error`.
parentPort.on("message", async ({ inputs, isStopped }) => {
  if (isStopped) return stop.abort();
  const feeds = Object.fromEntries(Object.entries(inputs).map(([name, { type, data, dims }]) => [name, new Tensor(type, data, dims)]));
  try {
    const { data, dims } = await play(manifest, open, feeds, { told, signal: stop.signal });
    parentPort.postMessage({ result: { data, dims } });
  } catch (error) {
    if (!stop.signal.aborted) throw error;
    parentPort.postMessage({ isStopped: true });
  }
  parentPort.close();
});
