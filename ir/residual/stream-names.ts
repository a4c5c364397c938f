/** Names of streams: labels for people, which no decision depends on. */
import { LATENT } from "../dit.js";
import type { Graph, Value } from "../graph.js";
import { type Dependence, isConvolution } from "../ops.js";
import type { Chain, ResidualBranch, ResidualStreams, Tokens } from "./index.js";
import { sourcesOf, type TokenSource } from "./tokens.js";

export interface StreamNames {
  /** What tokens are called: the modality of the latent's, `text` for those of a condition, joined by `+`. */
  readonly nameOf: (tokens: Tokens) => string;
  /** The name of the stream that a branch is added to. Streams that run side by side have different names. */
  readonly streamOf: (branch: ResidualBranch) => string;
}

/** The words by which names of inputs tell what they hold. */
const WORDS: readonly (readonly [name: string, words: RegExp])[] = [
  ["audio", /^(audio|sound|speech|music|voice|mel|wave?(form)?)$/],
  ["action", /^(actions?)$/],
  ["state", /^(states?|proprio(ception)?)$/],
  ["motion", /^(motions?|poses?)$/],
  ["text", /^(text|txt|prompts?|captions?)$/],
];

/** `inputs`: the input that each source of tokens is. */
export function streamNames(
  graph: Graph,
  inputs: ReadonlyMap<TokenSource, Value>,
  dependsOn: Dependence,
  streams: ResidualStreams,
): StreamNames {
  const names = new Map<TokenSource, string>([[LATENT, modalityOf(inputs.get(LATENT))]]);
  const all = [...streams.branches, ...streams.constant];
  for (const source of all.flatMap(({ tokens }) => sourcesOf(tokens)))
    if (!names.has(source)) names.set(source, unused(told(inputs.get(source)) ?? "text", new Set(names.values())));
  const nameOf = (tokens: Tokens): string => {
    const own = new Set(sourcesOf(tokens).map((source) => names.get(source) ?? "text"));
    return [...own].join("+") || (names.get(LATENT) ?? "");
  };
  const chains = apart(all, nameOf);
  return { nameOf, streamOf: (branch) => chains.get(branch.chain) ?? nameOf(branch.tokens) };

  /**
   * The modality of the latent. Pictures have rank 4, or 5 with a single frame; videos have rank 5. Rank 3 is audio if it is convolved
   * along the sequence. Otherwise it is a sequence of patches: as a rule of pictures if there is a stream of a condition, else of videos.
   */
  function modalityOf(latent: Value | undefined): string {
    const shape = latent?.type?.shape ?? [];
    const word = told(latent);
    if (word !== undefined) return word;
    if (shape.length === 5) return shape.slice(1, 3).includes(1) ? "image" : "video";
    if (shape.length !== 3) return "image";
    if (graph.nodes.some((node) => isConvolution(node) && (dependsOn(node.outputs[0]) & LATENT) !== 0)) return "audio";
    const attendsJointly = streams.branches.some(({ tokens }) => sourcesOf(tokens).some((source) => source !== LATENT));
    return attendsJointly ? "image" : "video";
  }
}

/** What the name of an input says. `hidden_states` and the like say nothing. */
function told(input: Value | undefined): string | undefined {
  const words = (input?.name ?? "")
    .replaceAll(/hidden_?states?/gi, "")
    .toLowerCase()
    .split(/[^a-z]+/);
  return WORDS.find(([, expression]) => words.some((word) => expression.test(word)))?.[0];
}

/** The name, with a number behind it if it is taken. */
function unused(name: string, taken: ReadonlySet<string>): string {
  for (let i = 1; ; i++) {
    const candidate = i === 1 ? name : `${name}${i}`;
    if (!taken.has(candidate)) return candidate;
  }
}

/** Names for chains: those of their tokens; chains of one name that run side by side are numbered. */
function apart(branches: readonly ResidualBranch[], nameOf: (tokens: Tokens) => string): ReadonlyMap<Chain, string> {
  const spans = new Map<Chain, { readonly name: string; first: number; last: number }>();
  for (const { chain, tokens, depth } of branches) {
    const span = spans.get(chain) ?? { name: nameOf(tokens), first: depth, last: depth };
    spans.set(chain, { ...span, first: Math.min(span.first, depth), last: Math.max(span.last, depth) });
  }
  const ends = new Map<string, number>();
  const names = new Map<Chain, string>();
  for (const [chain, { name, first, last }] of [...spans].sort(([, a], [, b]) => a.first - b.first)) {
    const busy = new Set([...ends].filter(([, end]) => end >= first).map(([taken]) => taken));
    const own = unused(name, busy);
    names.set(chain, own);
    ends.set(own, last);
  }
  return names;
}
