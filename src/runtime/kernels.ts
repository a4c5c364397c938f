/** What the runtime has no kernels for, in terms of the network: of types, and of operators in a type. */
import { operands } from "../../ir/analysis.js";
import type { CompilerError } from "../../ir/diagnostics.js";
import type { Model, Node } from "../../ir/graph.js";
import { isDataMovement } from "../../ir/ops.js";
import { type ElementType, isRuntimeType } from "../../ir/types.js";
import type { Run } from "../../schedules/index.js";
import { noKernels } from "../words/index.js";

/** Throws NO_KERNELS if a device has none for the float type that a run, or one of its networks as exported, computes in. */
export function assertKernels({ precision, networks }: Run, device = "cpu"): void {
  if (device !== "cpu") return;
  const operators = [...networks.values()].flatMap((network) => computingIn("bfloat16", network));
  if (precision === "bfloat16" || operators.length > 0) throw noKernels("bfloat16", device, [...new Set(operators)]);
}

/** The message with which a session is refused for one operator. */
const REFUSAL = /Could not find an implementation for (\S+?)\(\d+\) node/;

/** NO_KERNELS, if that is what a message of the runtime says of a model: the type, and all operators that compute in it. */
export function missingKernels(message: string, model: Model, device: string): CompilerError | undefined {
  const refused = REFUSAL.exec(message)?.[1];
  const found = model.graph.nodes.filter(({ opType }) => opType === refused).flatMap(typesOf);
  // Types that the runtime does not even take and return are those that it has few kernels for. In others it lacks this operator alone.
  const type = found.find((elem) => !isRuntimeType(elem));
  return refused === undefined || type === undefined
    ? undefined
    : noKernels(type, device, [...new Set([refused, ...computingIn(type, model)])]);
}

/** The operators of a graph that compute in a type, as its types are known. */
function computingIn(type: ElementType, { graph }: Model): readonly string[] {
  return graph.nodes.filter((node) => !isDataMovement(node) && typesOf(node).includes(type)).map(({ opType }) => opType);
}

function typesOf(node: Node): readonly ElementType[] {
  return [...operands(node), ...node.outputs].flatMap(({ type }) => type?.elem ?? []);
}
