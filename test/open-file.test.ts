/** The door to files: what is no regular file, or too large, is refused at once by whatever reads it. */
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { readModel } from "../ir/onnx/index.js";
import { readFile } from "../ir/open-file.js";
import { readTrace } from "../src/calibration/index.js";
import { fileDigest } from "../src/files/digest.js";
import { readJson, readNpy, readNpz, readTorchFile } from "../src/files/index.js";
import { loadExtensions } from "../src/job/index.js";
import { Session } from "../src/runtime/index.js";
import { rejectedCodeOf } from "./support/thrown.js";

let folder = "";
let server: Server | undefined;
const at = (name: string): string => join(folder, name);
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "open-"));
  mkdirSync(at("folder"));
  execFileSync("mkfifo", [at("pipe")]);
  await new Promise<void>((done) => {
    server = createServer().listen(at("socket"), done);
  });
});
afterAll(() => {
  server?.close();
  rmSync(folder, { recursive: true });
});

const READERS: Readonly<Record<string, (file: string) => unknown>> = {
  json: readJson,
  trace: readTrace,
  npy: readNpy,
  npz: readNpz,
  torch: readTorchFile,
  onnx: readModel,
  digest: fileDigest,
  extension: (file) => loadExtensions([file]),
  session: (file) => Session.open(file, { optimise: "disabled" }),
};

describe.each(Object.entries(READERS))("%s", (_, read) => {
  const codeOf = (file: string): Promise<string | undefined> => rejectedCodeOf(Promise.resolve().then(() => read(file)));

  it.each(["pipe", "folder"])("does not wait for a %s", async (name) => {
    expect(await codeOf(at(name))).toBe("NOT_A_FILE");
  });

  it("reads no file whose name no file can have", async () => {
    expect(["FILE_MISSING", "BAD_EXTENSION"]).toContain(await codeOf(at("a\0b")));
  });

  it("reads no device and no socket", async () => {
    expect(await codeOf("/dev/zero")).toBe("NOT_A_FILE");
    expect(await codeOf(at("socket"))).toBe("FILE_MISSING");
  });
});

describe("size", () => {
  it("is looked at before anything is read", async () => {
    writeFileSync(at("large.json"), "{}");
    truncateSync(at("large.json"), 2 ** 40);
    for (const read of [readJson, readTrace, readNpy, readNpz, readTorchFile])
      expect(await rejectedCodeOf(Promise.resolve().then(() => read(at("large.json"))))).toBe("FILE_TOO_LARGE");
    truncateSync(at("large.json"), 2);
    expect(readJson(at("large.json"))).toEqual({});
    expect(readFile(at("large.json"), 2).toString()).toBe("{}");
  });
});
