/** What the runtime says where it has no kernel for an operator, in terms of the network. */
import { operands } from "../../ir/analysis.js";
import type { CompilerError } from "../../ir/diagnostics.js";
import type { Model, Node } from "../../ir/graph.js";
import { isDataMovement } from "../../ir/ops.js";
import { type ElementType, RUNTIME_TYPES } from "../../ir/types.js";
import { noKernels } from "../words/index.js";

/** The message with which a session is refused for one operator. */
const REFUSAL = /Could not find an implementation for (\S+?)\(\d+\) node/;

/** NO_KERNELS, if a message of the runtime says that it hardly computes in a type of the model: the type, and all operators that do. */
export function missingKernels(message: string, { graph }: Model, device: string): CompilerError | undefined {
  const refused = REFUSAL.exec(message)?.[1];
  const found = graph.nodes.filter(({ opType }) => opType === refused).flatMap(typesOf);
  // Types that the runtime does not even take and return are those that it has few kernels for. In others it lacks this operator alone.
  const type = found.find((elem) => !RUNTIME_TYPES.some((known) => known === elem));
  if (refused === undefined || type === undefined) return undefined;
  const computing = graph.nodes.filter((node) => !isDataMovement(node) && typesOf(node).includes(type));
  return noKernels(type, device, [...new Set([refused, ...computing.map(({ opType }) => opType)])]);
}

function typesOf(node: Node): readonly ElementType[] {
  return [...operands(node), ...node.outputs].flatMap(({ type }) => type?.elem ?? []);
}
