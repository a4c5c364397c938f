/** Progress on stderr: a bar on a terminal, elsewhere a plain line from time to time. */
import { SingleBar } from "cli-progress";
import type { Progress } from "../words/index.js";

/** A stream that may be a terminal. */
export type ProgressStream = NodeJS.WritableStream & { readonly isTTY?: boolean | undefined };

/** `stop` leaves the terminal as it was. */
export function progressOn(stream: ProgressStream): { readonly report: Progress; readonly stop: () => void } {
  return stream.isTTY === true ? bars(stream) : lines(stream);
}

function bars(stream: NodeJS.WritableStream): { readonly report: Progress; readonly stop: () => void } {
  let bar: SingleBar | undefined;
  let current: string | undefined;
  const stop = (): void => {
    bar?.stop();
    bar = undefined;
    current = undefined;
  };
  const report: Progress = (label, done, total) => {
    if (label !== current) {
      stop();
      bar = new SingleBar({ format: "{label} {bar} {value}/{total} {eta_formatted}", stream, hideCursor: true });
      bar.start(total, done, { label });
      current = label;
    }
    bar?.update(done);
    if (done >= total) stop();
  };
  return { report, stop };
}

/** The first and the last state of each piece of work, and every tenth of it. */
function lines(stream: NodeJS.WritableStream): { readonly report: Progress; readonly stop: () => void } {
  let last = "";
  const report: Progress = (label, done, total) => {
    const tenth = Math.floor((10 * done) / Math.max(1, total));
    const key = `${label} ${tenth}`;
    if (key === last) return;
    last = key;
    stream.write(`${label}: ${done}/${total}\n`);
  };
  return { report, stop: () => undefined };
}
