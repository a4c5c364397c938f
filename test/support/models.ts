/** Small models to test with. */
import type { Model } from "../../ir/graph.js";

/** A model around what matters of a graph. */
export function modelOf(graph: Partial<Model["graph"]>): Model {
  return {
    graph: { name: "g", inputs: [], outputs: [], nodes: [], marks: [], ...graph },
    opsets: new Map([["", 20]]),
    irVersion: 10,
    metadata: new Map(),
  };
}

/** A run of three iterations, as `print` has it: hᵢ₊₁ = hᵢ + (hᵢ·w in the first and the last, −x in the second), from h₀ = −x. */
export const LOOPED = `<ir_version: 10, opset_import: ["" : 20]>
g (float[2,2] x) => (float[2,2] y)
<
  int64 trips = {3},
  bool[3] computes = {1, 0, 1},
  float[2,2] w = {1, 2, 3, 4},
  float[2,2] a
>
{
  a = Neg(x)
  y = Loop<
    body = body (int64 i, bool on, float[2,2] h) => (bool on, float[2,2] next)
    <
      bool now,
      float[2,2] chosen
    >
    {
      now = Gather<axis = 0>(computes, i)
      chosen = If<
        then_branch = then_branch () => (float[2,2] made)
        {
          made = MatMul(h, w)
        },
        else_branch = else_branch () => (float[2,2] a)
        {
        }
      >(now)
      next = Add(chosen, h)
    }
  >(trips, "", a)
}`;
