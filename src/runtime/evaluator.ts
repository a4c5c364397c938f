/** Answers the questions of passes with the runtime, each in a session of its own. */
import { operands } from "../../ir/analysis.js";
import { CompilerError } from "../../ir/diagnostics.js";
import { type Graph, inputValue, makeOp, type Model, type Node, type Value } from "../../ir/graph.js";
import { rewrite, sweep } from "../../ir/rewrite.js";
import { tensorBytes } from "../../ir/tensor.js";
import { isRuntimeType, type TensorType } from "../../ir/types.js";
import type { Evaluator } from "../../passes/pass.js";
import { provider } from "./device.js";
import { type RuntimeOptions, Session } from "./session.js";

/** The evaluator of passes. It computes constants on the CPU, whatever the device of the run. */
export function evaluator({ threads, signal }: Pick<RuntimeOptions, "threads" | "signal"> = {}): Evaluator {
  const using = async <T>(model: Model, optimise: "disabled" | "basic", ask: (session: Session) => Promise<T> | T): Promise<T> => {
    const session = await Session.open(model, { threads, signal, optimise, prepack: false });
    try {
      return await ask(session);
    } finally {
      await session.close();
    }
  };
  return {
    evaluate: (model) =>
      using(model, "disabled", async (session) => {
        const results = await session.run(new Map());
        return [...results.values()];
      }),
    types: async (model, values) => {
      const typesOf = async (probed: readonly Value[], nodes: readonly Node[] = []): Promise<readonly (TensorType | undefined)[]> => {
        const outputs = probed.map((value, i) => ({ name: `probe_${i}`, value }));
        const graph = sweep({ ...model.graph, nodes: [...model.graph.nodes, ...nodes], outputs, marks: [] });
        const asked = { ...model, graph: withoutWeights(graph) };
        // Some kernels only load where their weights are constants.
        return using(asked, "basic", (session) => session.outputTypes).catch((error: unknown) => {
          if (error instanceof CompilerError && error.code === "CANCELLED") throw error;
          return using({ ...model, graph }, "basic", (session) => session.outputTypes);
        });
      };
      const types = await typesOf(values);
      // The binding says `[]` for scalars, and where no rank is known. The shape of a scalar has no elements.
      const perhaps = values.filter((_, i) => types[i]?.shape?.length === 0);
      const shapes = perhaps.map((value, i) => makeOp("Shape", [value], { name: `shape_${i}` }));
      const lengths =
        perhaps.length === 0
          ? []
          : await typesOf(
              shapes.map(({ value }) => value),
              shapes.map(({ node }) => node),
            );
      const unknown = new Set(perhaps.filter((_, i) => lengths[i]?.shape?.[0] !== 0));
      const known = new Map<Value, TensorType>();
      for (const [i, value] of values.entries()) {
        const type = types[i];
        if (type) known.set(value, unknown.has(value) ? { ...type, shape: null } : type);
      }
      return known;
    },
  };
}

/** No size follows from the numbers of a constant of more bytes than this. */
const SIZE_BYTES = 1024;

/** The graph with inputs in place of weights, so that the runtime need not load them to say of which types results are. */
function withoutWeights(graph: Graph): Graph {
  const weights = new Map<Value, Value>();
  const inputs = new Set(graph.inputs);
  for (const value of graph.nodes.flatMap(operands)) {
    const { data } = value;
    if (!data || inputs.has(value) || weights.has(value) || !isRuntimeType(data.elem) || tensorBytes(data) <= SIZE_BYTES) continue;
    weights.set(value, inputValue(`weight_${weights.size}`, { elem: data.elem, shape: data.shape }));
  }
  const fed = rewrite(graph, () => undefined, weights);
  return { ...fed, inputs: [...fed.inputs, ...weights.values()] };
}

/** Throws UNKNOWN_DEVICE or DEVICE_MISSING if no model can run on the device. Call it before any work is done for that device. */
export async function assertDevice(device = "cpu"): Promise<void> {
  if (provider(device) === "cpu") return;
  const input = inputValue("x", { elem: "float", shape: [1] });
  const { node, value } = makeOp("Identity", [input], { name: "y", type: input.type });
  const graph = { name: "device", inputs: [input], outputs: [{ name: "y", value }], nodes: [node], marks: [] };
  const session = await Session.open(
    { graph, opsets: new Map([["", 17]]), irVersion: 8, metadata: new Map() },
    { device, optimise: "disabled" },
  );
  await session.close();
}
