/** Companions of a run: networks that are joined in front of it, such as text encoders, and behind it, such as a decoder. */
import type { Half } from "../ir/dit.js";
import type { Model } from "../ir/graph.js";
import { type Condition, uncondInput } from "./condition.js";

/** A network that is called once a run. Its inputs and outputs are values of the run, which have names of their own. */
export interface Companion {
  readonly name: string;
  /** With all shapes bound and all values typed. */
  readonly model: Model;
  /** The same for the unconditional half, where shapes are others there. */
  readonly uncondModel?: Model | undefined;
  /** The value that each input reads. */
  readonly inputs: ReadonlyMap<string, string>;
  /** The value that each output gives; outputs that are not in it are not used. */
  readonly outputs: ReadonlyMap<string, string>;
}

export interface Companions {
  /** What they give is read by each other and by the conditions of the same name. */
  readonly before: readonly Companion[];
  /** They read `LATENT_VALUE`, what those in front give, and inputs of the run. */
  readonly after: readonly Companion[];
  /** The inputs of the run that companions alone read, by name. */
  readonly inputs: ReadonlyMap<string, Condition>;
  /** Whether the run gives its last latent beside what those behind it make of it. */
  readonly keepLatent: boolean;
}

/** The name by which companions behind a run know its last latent. */
export const LATENT_VALUE = "latent";

export const NO_COMPANIONS: Companions = { before: [], after: [], inputs: new Map(), keepLatent: true };

/** What the wiring of a companion says, whatever its network is. */
export type Wiring = Pick<Companion, "inputs" | "outputs">;

/** The values that companions give. */
export function givenBy(companions: readonly Wiring[]): ReadonlySet<string> {
  return new Set(companions.flatMap(({ outputs }) => [...outputs.values()]));
}

/**
 * The values of `before` that the unconditional half has other than the conditional one: those inputs of which `differs` says so,
 * and all that follow from them.
 */
export function differingValues(before: readonly Wiring[], differs: (input: string) => boolean): ReadonlySet<string> {
  const differing = new Set<string>();
  const given = new Set<string>();
  for (const { inputs, outputs } of before) {
    const isOwn = [...inputs.values()].some((value) => differing.has(value) || (!given.has(value) && differs(value)));
    for (const value of outputs.values()) {
      given.add(value);
      if (isOwn) differing.add(value);
    }
  }
  return differing;
}

/** What the companions behind a run give to nobody but the user: the outputs of the run beside its latent. */
export function resultsOf({ after }: { readonly after: readonly Wiring[] }): readonly string[] {
  const read = new Set(after.flatMap(({ inputs }) => [...inputs.values()]));
  return [...givenBy(after)].filter((value) => !read.has(value));
}

/** The name under which a half has a value: its own, or that of the unconditional half. */
export function valueName(value: string, half: Half): string {
  return half === "cond" ? value : uncondInput(value);
}
