/** The tokens of cacheable sites: where they are in a site's value, and what of the branch is computed for each of them by itself. */
import { dependence } from "./analysis.js";
import { attendedTokens, incomingTokens, type TokenValue } from "./own-tokens.js";
import { branchOwners, nodeCost, stepCost, totalMacs } from "./cost.js";
import { LATENT } from "./dit.js";
import { ditView, inputValue, type Mark, type Model, type Node, type Value } from "./graph.js";
import { isInPart, joinedNeeds, type Need, type Needs, operandNeeds, type Rows, tokenRows } from "./rows.js";
import { elementCount, staticShape } from "./types.js";

export interface SiteTokens {
  /** How many there are. */
  readonly count: number;
  /** How many of them are a row of the picture, or of a frame; absent where that does not follow from the latent. */
  readonly columns?: number | undefined;
  /**
   * The share of the branch's MACs that falls with the number of tokens; the rest is keys and values. Of attention that streams have in common
   * these are the products of the branch's own queries; where no branch needs the other streams' queries, they fall away as well and are not in it.
   */
  readonly share: number;
  /** That share where keys and values are kept as well; absent where the branch does not attend to its own tokens, or these are not found. */
  readonly shareWithKeys?: number | undefined;
  /** What it takes to move all tokens with one of them, by weights: a share of the branch's MACs. */
  readonly move: number;
  /** Whether they can be chosen in the run: absent where there is no one value that comes in, `mixer` as below but for tokens that are chosen. */
  readonly choice?: { readonly mixer?: string | undefined } | undefined;
  /** What of the branch mixes tokens, other than attention, so that they cannot be computed apart: operator and node; undefined if nothing does. */
  readonly mixer?: string | undefined;
}

const known = new WeakMap<Model["graph"], ReadonlyMap<string, SiteTokens>>();

/** By site; a site whose value has no axis of tokens is left out. */
export function siteTokens(model: Model): ReadonlyMap<string, SiteTokens> {
  const { graph } = model;
  const found = known.get(graph);
  if (found) return found;
  const made = tokensOfSites(model);
  known.set(graph, made);
  return made;
}

function tokensOfSites(model: Model): ReadonlyMap<string, SiteTokens> {
  const { graph } = model;
  const { latent } = ditView(model);
  const dependsOn = dependence(graph, new Map(graph.inputs.map((input) => [input, input.name === latent ? LATENT : 2 * LATENT])));
  const shape = staticShape(graph.inputs.find(({ name }) => name === latent)?.type) ?? [];
  const [batch = 1] = shape;
  const nodesOf = new Map<string, Node[]>();
  const owners = branchOwners(graph);
  for (const node of [...graph.nodes].reverse()) {
    if ((dependsOn(node.outputs[0]) & LATENT) === 0) continue;
    for (const { site } of owners.get(node) ?? []) {
      const nodes = nodesOf.get(site);
      if (nodes) nodes.push(node);
      else nodesOf.set(site, [node]);
    }
  }
  const costs = stepCost(model).branches;
  const counts = new Map(
    graph.marks.flatMap(({ site, value }) => {
      const count = countOf(value, batch);
      return count === undefined ? [] : [[site, count] as const];
    }),
  );
  const attended = attendedTokens(model, (site) => counts.get(site));
  const incoming = incomingTokens(model, (site) => counts.get(site));
  const tokens = new Map<string, SiteTokens>();
  for (const mark of graph.marks) {
    const { site, value } = mark;
    const count = counts.get(site);
    if (count === undefined) continue;
    const nodes = nodesOf.get(site) ?? [];
    const own = attended.get(mark);
    const cost = costs.get(site);
    const macs = cost ? totalMacs(cost) : 0;
    const walked = (kept: readonly TokenValue[] = [], chosen?: Value): { readonly share: number; readonly mixer: string | undefined } => {
      const given = new Map<Value, Need>(kept.map((one) => [one.value, tokenRows(one.value, count, [0], one.axis)]));
      const { rowWise, mixer } = walk(value, nodes, { ...tokenRows(value, count, [0]), chosen }, given);
      const ofOne = [...rowWise].reduce((sum, [node, part]) => sum + part * totalMacs(nodeCost(node, dependsOn)), 0);
      return { share: macs === 0 ? 1 : (ofOne * count) / macs, mixer: mixer && `${mixer.opType} '${mixer.name}'` };
    };
    const isChoosable = incoming.has(mark) && value.type?.shape?.length === 3;
    const columns = columnsOf(count, shape);
    tokens.set(site, {
      ...{ count, ...(columns !== undefined && { columns }), ...walked() },
      shareWithKeys: own && walked([own.keys, own.values]).share,
      move: macs === 0 ? 0 : elementCount(staticShape(value.type) ?? []) / macs,
      choice: isChoosable ? { mixer: walked([], ANY_CHOICE).mixer } : undefined,
    });
  }
  return tokens;
}

/** Stands for tokens that are chosen in the run. */
const ANY_CHOICE = inputValue("any");

/** The part of a node's rows that is wanted. */
function partOf({ outputs }: Node, wanted: Needs): number {
  const parts = wanted.map((need, i) => {
    if (need === undefined) return 0;
    return need === "all" ? 1 : need.at.length / (staticShape(outputs[i]?.type)?.[need.axis] ?? NaN);
  });
  return Math.max(...parts);
}

/** The columns of the grid of tokens, if these are square patches of a latent [batch, channels, …, height, width]. */
function columnsOf(count: number, shape: readonly number[]): number | undefined {
  const [height = 1, width = 1] = shape.slice(-2);
  const side = Math.sqrt((height * width) / count);
  return shape.length >= 4 && Number.isInteger(side) && height % side === 0 && width % side === 0 ? width / side : undefined;
}

/** Tokens are the axis in front of the channels. A value without an axis for the batch counts them for each of its rows. */
function countOf({ type }: Value, batch: number): number | undefined {
  const shape = staticShape(type);
  if (!shape || shape.length < 2) return undefined;
  const count = (shape.at(-2) ?? 0) / (shape.length === 2 ? batch : 1);
  return Number.isInteger(count) && count > 0 ? count : undefined;
}

/**
 * The nodes of a branch that are computed for these rows of its value alone, and for what is given of others, each with the part of its rows that
 * this takes; and the first that cannot be.
 */
function walk(
  value: Mark["value"],
  nodes: readonly Node[],
  rows: Rows,
  given: ReadonlyMap<Value, Need>,
): { readonly rowWise: ReadonlyMap<Node, number>; readonly mixer?: Node | undefined } {
  const needs = new Map<Value, Need>([[value, rows]]);
  const rowWise = new Map<Node, number>();
  for (const node of nodes) {
    const wanted = node.outputs.map((output) => given.get(output) ?? needs.get(output));
    const own = isInPart(wanted) ? operandNeeds(node, wanted) : node.inputs.map(() => "all" as const);
    if (!own) return { rowWise, mixer: node };
    if (isInPart(own)) rowWise.set(node, partOf(node, wanted));
    for (const [i, input] of node.inputs.entries()) {
      const need = own[i];
      const before = input && needs.get(input);
      if (input && need !== undefined) needs.set(input, before === undefined ? need : joinedNeeds(before, need));
    }
  }
  return { rowWise };
}
