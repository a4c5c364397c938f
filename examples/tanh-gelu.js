// A pass in one file: Gelu by tanh, an operator since opset 20, as ½ x (1 + tanh(√(2/π) (x + 0.044715 x³))) for what does not know it.
//
//   smoothcc build MODEL --extension ./examples/tanh-gelu.js -o out
import { Builder, constant, isOp, rewrite, tensorOf } from "smoothcc/ir";

/** @type {import("smoothcc/passes").OwnPass} */
export default {
  name: "tanh-gelu",
  // After the passes that make one step small, before it is copied for every step of the run.
  stage: "step",
  preserves: "rounding",
  summary: "spell Gelu out",
  run(model) {
    const graph = rewrite(model.graph, (node) => {
      if (!isOp(node, "Gelu") || node.attributes.get("approximate")?.value !== "tanh") return undefined;
      const [x] = node.inputs;
      const [{ name, type }] = node.outputs;
      const build = new Builder(node.scope);
      const op = (opType, what, ...inputs) => build.op(opType, inputs, what === "" ? name : `${name}_${what}`, type);
      const number = (value) => constant(`${name}_${value}`, tensorOf(type.elem, [], [value]));
      const scale = Math.sqrt(2 / Math.PI);
      const cubic = op("Mul", "cubic", op("Mul", "square", x, x), number(0.044715 * scale));
      const inner = op("Mul", "inner", x, op("Add", "slope", cubic, number(scale)));
      const half = op("Mul", "half", x, number(0.5));
      const rest = op("Mul", "rest", half, op("Tanh", "tanh", inner));
      return { nodes: build.nodes, outputs: [op("Add", "", half, rest)] };
    });
    return { ...model, graph };
  },
};
