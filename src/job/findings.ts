/** What a user should know of a network that has been bound and lifted, as sentences. */
import { stepCost, totalMacs } from "../../ir/cost.js";
import { type Model, opsetOf } from "../../ir/graph.js";
import { isStandard } from "../../ir/ops.js";
import { unknownWarning } from "../../ir/unknown.js";
import { staysForeign } from "../../passes/index.js";
import type { PredictionSlice } from "../../schedules/index.js";
import { heldConditions } from "./per-step-candidates.js";
import { type Recipe, saidOf } from "./recipe.js";

/** `taken`: what is taken for the prediction. */
export function findingsOf(model: Model, recipe: Recipe, taken: PredictionSlice): readonly string[] {
  const held = heldConditions(model, (name) => saidOf(recipe, name).isPerStep);
  const all = [unknownWarning(model) ?? coverage(model), foreign(model), channels(model, recipe.prediction, taken), held];
  return all.flatMap((sentence) => sentence ?? []);
}

/** If the branches hold less than this share of a step's MACs, some were probably not found. */
const EXPECTED_COVERAGE = 0.5;

/** Much of the compute is in no branch. */
function coverage(model: Model): string | undefined {
  const { total, branches } = stepCost(model);
  const all = totalMacs(total);
  const found = [...branches.values()].reduce((sum, macs) => sum + totalMacs(macs), 0);
  if (all === 0 || found >= EXPECTED_COVERAGE * all) return undefined;
  const share = ((100 * found) / all).toFixed(0);
  return `Only ${share} % of a step's MACs are in branches that were found; the rest is computed at every step. The model may be of a kind that is not supported yet.`;
}

/** The artifact will have operators outside of the standard. */
function foreign(model: Model): string | undefined {
  const opset = opsetOf(model);
  const nodes = model.graph.nodes.filter((node) => !isStandard(node, opset) && staysForeign(node, opset));
  if (nodes.length === 0) return undefined;
  const operators = [...new Set(nodes.map(({ domain, opType }) => (domain === "" ? opType : `${domain}.${opType}`)))].join(", ");
  const count = nodes.length === 1 ? "1 node has an operator" : `${nodes.length} nodes have operators`;
  return `${count} outside of the ONNX standard (${operators}): ONNX Runtime has them, other runtimes may not. An export that no optimiser or quantiser of ONNX Runtime has been at has none.`;
}

/** The prediction was taken from an output that has something else than a variance behind it. */
function channels(model: Model, asked: PredictionSlice, { channels, channelAxis }: PredictionSlice): string | undefined {
  const [port] = model.graph.outputs;
  const have = port?.value.type?.shape?.[channelAxis];
  if (asked.channels !== undefined || channels === undefined || have === 2 * channels[1]) return undefined;
  return `The first ${channels[1]} of ${have} channels of '${port?.name}' are taken for the prediction: if those are others, name them as "prediction": { "channels": [from, to] } in recipe.json.`;
}
