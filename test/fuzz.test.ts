/** Some thousands of the inputs that `npm run fuzz` makes, and every case that it once found (test/fuzz/). */
import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";
import { describe, expect, it } from "vitest";

const ROOT = join(import.meta.dirname, "..");

describe("every reader", () => {
  it.each([
    ["onnx", 250],
    ["text", 800],
    ["recipe,plan,trace,manifest,scheduler", 800],
    ["npy,npz", 500],
    ["pt", 100],
  ])(
    "%s: answers any input with a value or a CompilerError, within bounds",
    async (reader, inputs) => {
      const argv = ["dist/test/fuzz/main.js", "--seed", "22", "--inputs", String(inputs), "--reader", reader];
      const { stdout } = await promisify(execFile)(process.execPath, argv, { cwd: ROOT });
      expect(stdout).toMatch(/^\d+ inputs, 0 findings$/m);
    },
    300_000,
  );
});
