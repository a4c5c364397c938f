/** The command line, in this process. */
import { Writable } from "node:stream";
import { main } from "../../src/cli/cli.js";

export interface Ran {
  readonly exit: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface Watched {
  readonly signal?: AbortSignal;
  /** Called after every write to stderr. */
  readonly onProgress?: () => void;
}

export async function cli(argv: readonly string[], { signal = new AbortController().signal, onProgress }: Watched = {}): Promise<Ran> {
  const texts = { stdout: "", stderr: "" };
  const into = (name: keyof typeof texts): Writable =>
    new Writable({
      write: (chunk, _encoding, done) => {
        texts[name] += String(chunk);
        if (name === "stderr") onProgress?.();
        done();
      },
    });
  const exit = await main([...argv], { stdout: into("stdout"), stderr: into("stderr"), signal });
  return { exit, ...texts };
}
