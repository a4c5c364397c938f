/** The inputs of a reader: its cases, and then, by number, variants of its seeds. */
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { join, resolve } from "node:path";
import { Random } from "./random.js";
import type { Reader } from "./readers.js";

/** This file is run from dist/test/fuzz/. */
export const ROOT = resolve(import.meta.dirname, "../../..");

/** Larger fixtures have nothing that smaller ones have not. */
const LARGEST_SEED = 1 << 14;

/** Bombs are not changed any further. */
const LARGEST_INPUT = 1 << 22;

export class Inputs {
  /** Inputs that a reader has once been wrong about: numbers −1, −2, … */
  readonly cases: readonly string[];
  private readonly seeds: readonly Buffer[];

  constructor(
    name: string,
    private readonly reader: Reader,
  ) {
    const folder = join("test/fuzz/cases", name);
    this.cases = existsSync(join(ROOT, folder)) ? filesIn(folder) : [];
    const files = ["examples", "test/fixtures", "test/cases"].flatMap(filesIn).filter((file) => reader.seeds.test(file));
    this.seeds = [...files, ...this.cases]
      .map((file) => readFileSync(join(ROOT, file)))
      .filter(({ length }) => length <= LARGEST_SEED)
      .sort((a, b) => a.length - b.length);
  }

  at(seed: number, index: number): Buffer {
    const known = this.cases[-index - 1];
    if (known !== undefined) return readFileSync(join(ROOT, known));
    const random = new Random(seed, index);
    let input = this.seed(random);
    const other = this.seed(random);
    for (let n = random.size(5); n > 0 && input.length <= LARGEST_INPUT; n--) input = this.reader.mutation(input, other, random);
    return input;
  }

  /** Small ones more often: they are the quicker ones. */
  private seed(random: Random): Buffer {
    const at = Math.min(random.below(this.seeds.length), random.below(this.seeds.length));
    return this.seeds[at] ?? Buffer.alloc(0);
  }
}

function filesIn(folder: string): readonly string[] {
  const entries = readdirSync(join(ROOT, folder), { recursive: true, encoding: "utf8" }).sort();
  return entries.map((entry) => join(folder, entry)).filter((file) => statSync(join(ROOT, file)).isFile());
}
