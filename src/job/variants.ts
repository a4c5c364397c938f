/** Variants: what several artifacts of one build have other than its recipe says, as text or in a recipe. */
import { optionNamed, policies } from "../../schedules/index.js";
import { badVariant } from "../words/index.js";
import { PICTURE_SIZE, type VariantFacts, variantSchema } from "./recipe.js";
import { type RecipeOverrides, recipeOf } from "./source.js";

/** What an artifact has other than the recipe says. */
export interface Differences {
  readonly overrides: RecipeOverrides;
  readonly policyOptions: Readonly<Record<string, unknown>>;
}

/** One artifact of several. */
export interface Variant extends Differences {
  /** The name of its folder (`isVariantName`). */
  readonly name: string;
}

/** Names that are the same file names on every system, and no options. */
const NAME = /^[a-z0-9][\w.,=+-]{0,99}$/i;

/** Names that the folder of all variants has for itself, or that some system has. */
const RESERVED = /^(variants\.json|report\.html|sha256sums)$/i;

/** Whether a variant can have this name: it is the name of a folder. */
export function isVariantName(name: string): boolean {
  return NAME.test(name) && !name.endsWith(".") && !RESERVED.test(name);
}

/**
 * The variants to build: those that are `named`, else all of the recipe's. What is named is a variant of the recipe, or defines one, as
 * `parseVariant` has it. What a definition says goes before what is `given` for all, and this before what the recipe says of a variant.
 * Throws BAD_VARIANT for what is neither and for two of one name, and what reading the recipe throws.
 */
export function variantsOf(model: string, given: Differences, named: readonly string[] = []): readonly Variant[] {
  const { variants: said = {} } = recipeOf(model, given.overrides)?.recipe ?? {};
  const listed = Array.isArray(said) ? said.map((text) => parseVariant(text)) : Object.entries(said);
  const known = new Map(listed);
  const chosen = named.length === 0 ? listed.map(([name]) => name) : named;
  const variants = chosen.map((text): Variant => {
    const facts = known.get(text);
    if (facts) return { name: text, ...merged(differencesOf(facts), given) };
    const [name, defined] = parseVariant(text, [...known.keys()]);
    return { name, ...merged(given, differencesOf(defined)) };
  });
  const names = new Set<string>();
  for (const { name } of variants) {
    if (!isVariantName(name))
      throw badVariant(name, "its name is that of a folder: letters, digits and _ . , = + - behind the first, up to 100 of them");
    // Some file systems take no notice of case.
    if (names.has(name.toLowerCase())) throw badVariant(name, "there are two of this name; give one another, as in small:512x512");
    names.add(name.toLowerCase());
  }
  return variants;
}

function differencesOf({ dims = {}, policy = {}, size, steps, start, guidance, batch, precision, cut }: VariantFacts): Differences {
  return {
    overrides: { size, steps, start, guidance, batch, precision, cut, dims: new Map(Object.entries(dims)) },
    policyOptions: Object.fromEntries(Object.entries(policy).map(([key, value]) => [optionNamed(key), String(value)])),
  };
}

/** Both, the last where both speak of a thing. */
function merged(first: Differences, last: Differences): Differences {
  const isThere = ([, value]: readonly [string, unknown]): boolean => value !== undefined;
  const dims = new Map([...(first.overrides.dims ?? []), ...(last.overrides.dims ?? [])]);
  return {
    overrides: { ...first.overrides, ...Object.fromEntries(Object.entries(last.overrides).filter(isThere)), dims },
    policyOptions: { ...first.policyOptions, ...last.policyOptions },
  };
}

/** The keys of `VariantFacts` that are numbers, and those that are words. */
const NUMBERS = ["steps", "start", "guidance", "batch"];
const WORDS = ["size", "precision", "cut"];

/**
 * A variant as text: `[name:]part,part…`. A part is a size in pixels, `512x512`, or `key=value`: a key of `variantSchema`, an option of a
 * policy, or else a symbolic dimension. Without a name it has its own text as name. Throws BAD_VARIANT.
 */
export function parseVariant(text: string, known: readonly string[] = []): readonly [name: string, facts: VariantFacts] {
  const [, name = text, definition = ""] = /^(?:([^:]*):)?(.*)$/s.exec(text) ?? [];
  const facts: Record<string, unknown> = {};
  const dims: Record<string, unknown> = {};
  const policy: Record<string, unknown> = {};
  for (const part of definition.split(",")) {
    const [, key = "", value = ""] = /^([^=]+)=(.+)$/s.exec(PICTURE_SIZE.test(part) ? `size=${part}` : part) ?? [];
    const isFact = NUMBERS.includes(key) || WORDS.includes(key);
    const place = isFact ? facts : isPolicyOption(key) ? policy : dims;
    if (key === "") throw badVariant(text, `'${part}' is neither a size in pixels, as 512x768, nor key=value`, known);
    if (Object.hasOwn(place, key)) throw badVariant(text, `it says ${key} twice`);
    place[key] = place === policy || WORDS.includes(key) ? value : Number(value);
  }
  const parsed = variantSchema.safeParse({ ...facts, dims, policy });
  const [issue] = parsed.error?.issues ?? [];
  if (!parsed.success) throw badVariant(text, `${issue?.path.at(-1)?.toString() ?? "it"}: ${issue?.message ?? "is not valid"}`);
  return [name, parsed.data];
}

function isPolicyOption(word: string): boolean {
  return [...policies.values()].some(({ options }) => Object.hasOwn(options.shape, optionNamed(word)));
}
