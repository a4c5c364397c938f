/** Files and folders take their places whole, over nothing that is not ours, and what killed processes leave is cleared up. */
import { execFileSync, spawnSync } from "node:child_process";
import { appendFileSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, symlinkSync, utimesSync, writeFileSync } from "node:fs"; // prettier-ignore
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import { Worker } from "node:worker_threads";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { writeWhole } from "../src/files/disk.js";
import { type FolderKind, prepareFolder, replaceFolder } from "../src/files/folders.js";
import { asideOf, placeBeside, tidy } from "../src/files/places.js";
import { damagesIn, writeSums, writeSummed } from "../src/files/sums.js";

const KIND: FolderKind = { called: "a letter", file: "letter.txt", text: "Dear" };

let root = "";
let folder = "";
let target = "";
beforeAll(() => {
  root = mkdtempSync(join(tmpdir(), "smoothcc-replacing-"));
});
beforeEach(() => {
  folder = mkdtempSync(join(root, "x"));
  target = join(folder, "target");
});
afterAll(() => {
  rmSync(root, { recursive: true, force: true });
});

/** Fills a folder of the kind. `meanwhile` happens before it is done. */
const letter =
  (text: string, meanwhile: () => void = () => undefined) =>
  async (partial: string): Promise<string> => {
    mkdirSync(join(partial, "pages"));
    writeFileSync(join(partial, "letter.txt"), `Dear ${text}`);
    writeFileSync(join(partial, "pages", "1.txt"), text);
    await writeSums(partial);
    meanwhile();
    return text;
  };
const put = (text: string, force: boolean, meanwhile?: () => void): Promise<string> =>
  replaceFolder(target, KIND, force, letter(text, meanwhile));
const text = (): string => readFileSync(join(target, "letter.txt"), "utf8");
const expectOnlyTarget = (): void => {
  expect(readdirSync(folder)).toEqual(["target"]);
};

describe("a folder", () => {
  it("takes its place whole, and replaces one of its kind if asked", async () => {
    await put("A", false);
    await expect(put("B", false)).rejects.toMatchObject({ code: "FILE_EXISTS" });
    expect(text()).toBe("Dear A");
    await put("B", true);
    expect(text()).toBe("Dear B");
    expectOnlyTarget();
  });

  it.each([
    { what: "a file", make: () => { writeFileSync(target, "thesis"); }, read: () => readFileSync(target, "utf8") },
    { what: "a folder", make: () => { mkdirSync(target); writeFileSync(join(target, "thesis.txt"), "thesis"); }, read: () => readFileSync(join(target, "thesis.txt"), "utf8") },
  ])("leaves $what alone that came while it was filled", async ({ make, read }) => {
    await expect(put("A", false, make)).rejects.toMatchObject({ code: "FILE_EXISTS" });
    expect(read()).toBe("thesis");
    rmSync(target, { recursive: true });
    await expect(put("A", true, make)).rejects.toMatchObject({ code: "NOT_REPLACEABLE" });
    expect(read()).toBe("thesis");
    expectOnlyTarget();
  }); // prettier-ignore

  it("of two without force one is refused, and of two with force none", async () => {
    const both = await Promise.allSettled([put("A", false), put("B", false)]);
    expect(both.filter(({ status }) => status === "fulfilled")).toHaveLength(1);
    expect(both.find(({ status }) => status === "rejected")).toMatchObject({ reason: { code: "FILE_EXISTS" } });
    const many = await Promise.all(["C", "D", "E", "F"].map((name) => put(name, true)));
    expect(many).toHaveLength(4);
    expect(["C", "D", "E", "F"].map((name) => `Dear ${name}`)).toContain(text());
    expect(await damagesIn(target)).toEqual([]);
    expectOnlyTarget();
  });

  it.each(["thesis.txt", "pages/thesis.txt", "pages/2/thesis.txt", "empty/"])("is not replaced with %s of others in it", async (path) => {
    await put("A", false);
    const add = (): void => {
      mkdirSync(join(target, path.endsWith("/") ? path : dirname(path)), { recursive: true });
      if (!path.endsWith("/")) writeFileSync(join(target, path), "thesis");
    };
    await expect(put("B", true, add)).rejects.toMatchObject({ code: "NOT_REPLACEABLE" });
    expect(() => {
      prepareFolder(target, KIND, true);
    }).toThrow(/thesis|empty/);
    expect([existsSync(join(target, path)), text()]).toEqual([true, "Dear A"]);
    expectOnlyTarget();
  });

  it("is written where a link leads, also to where nothing is yet", async () => {
    const link = join(folder, "link");
    symlinkSync("target", link);
    expect(await replaceFolder(link, KIND, false, letter("A"))).toBe("A");
    expect([text(), readdirSync(folder)]).toEqual(["Dear A", ["link", "target"]]);
    for (const [from, to] of [["one", "two"], ["two", "one"]] as const) symlinkSync(to, join(folder, from)); // prettier-ignore
    await expect(replaceFolder(join(folder, "one"), KIND, true, letter("A"))).rejects.toMatchObject({ code: "FILE_NOT_WRITTEN" });
    await expect(writeWhole(join(folder, "one"), "x", true)).rejects.toMatchObject({ code: "FILE_NOT_WRITTEN" });
  });
});

it("a file that came in the meantime is not replaced without force", async () => {
  const writes = await Promise.allSettled(["A", "B", "C"].map((text) => writeWhole(target, text, false)));
  expect(writes.filter(({ status }) => status === "fulfilled")).toHaveLength(1);
  for (const { reason } of writes.filter((write) => write.status === "rejected")) expect(reason).toMatchObject({ code: "FILE_EXISTS" });
  await Promise.all(["D", "E"].map((text) => writeWhole(target, text, true)));
  expect(["D", "E"]).toContain(readFileSync(target, "utf8"));
  expectOnlyTarget();
});

describe("what a killed process left", () => {
  const { pid } = spawnSync(process.execPath, ["--version"]);
  /** A place of a process of this machine that is not there any more. */
  const place = (of: string): string => placeBeside(of).replace(`-${process.pid}-`, `-${pid}-`);

  it.each([
    { left: "what was being written", partial: "new", expected: undefined },
    { left: "what was being written, over another", target: "before", partial: "new", expected: "before" },
    { left: "both, the old one set aside", partial: "new", old: "before", expected: "new" },
    { left: "the old one, with the new one in its place", target: "new", old: "before", expected: "new" },
    { left: "the old one alone", old: "before", expected: "before" },
  ])("$left", ({ expected, ...content }) => {
    const partial = place(target);
    const paths = { target, partial, old: asideOf(partial) };
    for (const [name, path] of Object.entries(paths)) {
      const text = new Map(Object.entries(content)).get(name);
      if (text !== undefined) writeFileSync(path, text);
    }
    tidy(target);
    expect(existsSync(target) ? readFileSync(target, "utf8") : undefined).toBe(expected);
    expect(readdirSync(folder)).toEqual(expected === undefined ? [] : ["target"]);
  });

  it("is told from what is at work, here or on another machine, and from what is of another target", () => {
    const own = placeBeside(target);
    const before = own.replace(/(-\d+)-\d+-/, "$1-1000000000-");
    const foreign = place(target).replace(/\.[0-9a-f]{8}-/, ".00000000-");
    const other = place(join(folder, "target.json"));
    for (const path of [own, before, foreign, other]) writeFileSync(path, "");
    tidy(target);
    expect(readdirSync(folder).sort()).toEqual([own, foreign, other].map((path) => basename(path)).sort());
    utimesSync(foreign, new Date(), new Date(Date.now() - 30 * 24 * 3600 * 1000));
    tidy(target);
    expect(readdirSync(folder).sort()).toEqual([own, other].map((path) => basename(path)).sort());
  });

  it("a thread's work is at work for the others of its process", async () => {
    const started = await new Promise<number>((resolve, reject) => {
      const code = `require("node:worker_threads").parentPort.postMessage(Math.round(Date.now() / 1000 - process.uptime()))`;
      new Worker(code, { eval: true }).on("message", resolve).on("error", reject);
    });
    const [, own] = /-\d+-(\d+)-/.exec(basename(placeBeside(target))) ?? [];
    expect(Math.abs(started - Number(own))).toBeLessThan(5);
  });
});

it("sums are what sha256sum writes and checks, and know every change", async () => {
  await put("A", false);
  const check = (): string => execFileSync("sha256sum", ["--check", "--strict", "SHA256SUMS"], { cwd: target, encoding: "utf8" });
  expect(check()).toBe("letter.txt: OK\npages/1.txt: OK\n");
  await writeSummed(target, "report.html", "<p>");
  expect(check()).toContain("report.html: OK");
  expect(await damagesIn(target)).toEqual([]);
  appendFileSync(join(target, "pages", "1.txt"), " ");
  expect(await damagesIn(target)).toEqual(["pages/1.txt is cut off or has changed"]);
  expect(await damagesIn(target, (path) => path === "letter.txt")).toEqual([]);
  renameSync(join(target, "letter.txt"), join(target, "moved.txt"));
  expect(await damagesIn(target)).toContain("letter.txt is missing");
  for (const damage of ["", "x", readFileSync(join(target, "SHA256SUMS"), "utf8").replace("  ", " ")]) {
    writeFileSync(join(target, "SHA256SUMS"), damage);
    expect(await damagesIn(target)).toEqual(["SHA256SUMS is missing or damaged"]);
  }
});
