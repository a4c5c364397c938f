/**
 * Conditions that may want a value for each step: what is added to the stream behind blocks, as a ControlNet's residuals are, and vectors,
 * as an embedded time is. A run holds them over all of its steps unless the recipe says otherwise.
 */
import { dependence, operands } from "../../ir/analysis.js";
import { LATENT } from "../../ir/dit.js";
import { ditView, type Graph, isOp, type Model, type Value } from "../../ir/graph.js";
import { type Dependence, isDataMovement, isElementwise } from "../../ir/ops.js";
import { timesOf } from "../../ir/times.js";

/** Why each of them is one, by name. The model has marks, and shapes as far as they are known. */
export function perStepCandidates(model: Model): ReadonlyMap<string, string> {
  const { graph } = model;
  const { latent, conditions } = ditView(model);
  const latents = graph.inputs.filter(({ name }) => name === latent);
  const vectors = timesOf(graph, latents).sampleVectors.filter(({ name }) => conditions.includes(name));
  return new Map([
    ...vectors.map(({ name }) => [name, "it is a vector of each sample, as an embedded time is"] as const),
    ...addedBehind(model).map((name) => [name, "it is added to the stream behind blocks"] as const),
  ]);
}

/** A warning that names those that are added to the stream, but for those of which `isPerStep`; undefined if there are none. */
export function heldConditions(model: Model, isPerStep: (name: string) => boolean): string | undefined {
  const held = addedBehind(model).filter((name) => !isPerStep(name));
  const [first] = held;
  if (first === undefined) return undefined;
  const [names, are] = [held.map((name) => `'${name}'`).join(", "), held.length === 1 ? "is" : "are"];
  return `${names} ${are} added to the stream behind blocks, and ${are} the same at all steps of a run: right for the features of an adapter, wrong for what a ControlNet gives, which changes with latent and time. What is known of it before the run can be given for each step: "inputs": { "${first}": { "perStep": true } } in recipe.json. What depends on the latent cannot: join such a network and this one in one file with onnx.compose.merge_models.`;
}

/** The conditions that are added to the stream behind blocks. */
function addedBehind(model: Model): readonly string[] {
  const { graph } = model;
  const { latent, conditions } = ditView(model);
  const isLatent = dependence(graph, new Map(graph.inputs.filter(({ name }) => name === latent).map((input) => [input, LATENT])));
  const isBehind = dependence(graph, new Map(graph.marks.map(({ value }) => [value, LATENT])));
  const widths = new Set(graph.marks.map(({ value }) => tokenShape(value)));
  return graph.inputs
    .filter((input) => conditions.includes(input.name) && widths.has(tokenShape(input)))
    .filter((input) => isAdded(graph, input, isLatent, isBehind))
    .map(({ name }) => name);
}

/** Rank and channels, by which what is added to a stream is like its branches. */
function tokenShape({ type }: Value): string | undefined {
  const shape = type?.shape;
  return shape && shape.length > 2 ? `${shape.length} ${String(shape.at(-1))}` : undefined;
}

/** Whether an input is added to a value behind a branch, scaled or moved at most. */
function isAdded(graph: Graph, input: Value, isLatent: Dependence, isBehind: Dependence): boolean {
  const reached = new Set([input]);
  for (const node of graph.nodes) {
    const read = operands(node);
    if (!read.some((value) => reached.has(value))) continue;
    const meets = read.some((value) => !reached.has(value) && isBehind(value) !== 0);
    if (meets && isOp(node, "Add", "Sum")) return true;
    const isAlone = isLatent(node.outputs[0]) === 0 && (isElementwise(node) || isDataMovement(node));
    if (isAlone) for (const output of node.outputs) reached.add(output);
  }
  return false;
}
