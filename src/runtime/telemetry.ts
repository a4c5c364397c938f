/**
 * Keeps ONNX Runtime from telling anybody what it runs. Unless the environment of its process says otherwise when the first session is
 * opened, release 1.30 keeps a store of events in the user's cache folder (of machine, model files, graphs and their metadata) and looks
 * for its maker's host to send them to.
 */
import { getEnvironmentData, isMainThread, setEnvironmentData } from "node:worker_threads";
import { telemetryOn } from "../words/index.js";

const VARIABLE = "ORT_DISABLE_TELEMETRY";

// Whatever the user has set there, nothing is sent. Processes that this thread starts inherit it.
process.env[VARIABLE] = "1";

let isOff = isMainThread || getEnvironmentData(VARIABLE) === "1";
// Workers that are started from here on know that there is nothing to do.
if (isOff) setEnvironmentData(VARIABLE, "1");

/**
 * Call it before a session is opened. In a worker thread `process.env` is a copy that the runtime does not see: unless the main thread had
 * loaded this module before the worker was started, it is asked to set the variable. Throws TELEMETRY_ON if it cannot be asked.
 */
export async function telemetryOff(): Promise<void> {
  if (isOff) return;
  try {
    const { Session } = await import("node:inspector");
    const session = new Session();
    // Waits for the main thread, which answers while it runs JavaScript, too.
    session.connectToMainThread();
    // A worker that waits for an inspector alone would end.
    const alive = setInterval(() => undefined, 1000);
    await new Promise<void>((resolve, reject) => {
      session.post("Runtime.evaluate", { expression: `process.env.${VARIABLE} = "1"` }, (error, reply) => {
        if (error) reject(error);
        else if (reply.result.value === "1") resolve();
        else reject(new Error("the main thread did not set it"));
      });
    }).finally(() => {
      clearInterval(alive);
      session.disconnect();
    });
  } catch (error) {
    throw telemetryOn(error);
  }
  isOff = true;
  setEnvironmentData(VARIABLE, "1");
}
