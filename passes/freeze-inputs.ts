/**
 * Turns inputs whose value is known at compile time into constants.
 * The forms handle inputs that differ between the halves of the guidance.
 */
import { constant, ditView, type Value } from "../ir/graph.js";
import { rewrite } from "../ir/rewrite.js";
import { elementCount, staticShape } from "../ir/types.js";
import type { Condition } from "../schedules/index.js";
import type { TensorData } from "../ir/tensor.js";
import type { Pass } from "./pass.js";

export default {
  name: "freeze-inputs",
  summary: "turn inputs with a known value into constants",
  preserves: "bits",
  run(model, { run: { conditions } }) {
    const { graph } = model;
    const view = ditView(model);
    const substitution = new Map<Value, Value>();
    for (const input of graph.inputs) {
      const condition = conditions.get(input.name);
      // An input with a default is an initializer that old exporters list as an input.
      const data = (condition && frozen(condition)) ?? input.data;
      const isWhole = data && elementCount(data.shape) === elementCount(staticShape(input.type) ?? data.shape);
      if (isWhole && (!condition || isShared(condition))) substitution.set(input, constant(input.name, data));
    }
    if (substitution.size === 0) return model;
    const next = rewrite(graph, () => undefined, substitution);
    const left = new Set(next.inputs.map(({ name }) => name));
    return { ...model, graph: next, dit: { ...view, conditions: view.conditions.filter((name) => left.has(name)) } };
  },
} satisfies Pass;

function isShared({ halves: { cond, uncond } }: Condition): boolean {
  return cond === uncond;
}

function frozen({ halves: { cond } }: Condition): TensorData | undefined {
  return cond.kind === "constant" && !cond.perStep ? cond.data : undefined;
}
