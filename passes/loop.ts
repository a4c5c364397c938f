/**
 * Makes the whole run from one step, as one `Loop` over the rows of the sampler's table. Its body is one step. It reads numbers that
 * differ between rows from tables, decides cached branches by an `If`, and carries the values that later steps read.
 */
import { Builder, shapeOf, type Weight, type WeightedValue } from "../ir/build.js";
import { formUnsupported } from "../schedules/diagnostics.js";
import { constant, type Graph, inputValue, makeNode, opsetOf, type Value } from "../ir/graph.js";
import { tensorOf } from "../ir/tensor.js";
import { type Call, type LearnedVariance, type Run, withMainNetwork } from "../schedules/index.js";
import type { Pass, PlanContext } from "./pass.js";
import { type Carried, decideBranches, zeros } from "./looping/branches.js";
import { History, type SumsByRow } from "./looping/history.js";
import { Iteration } from "./looping/iteration.js";
import { Calls } from "./lowering/calls.js";
import { GuidedPrediction } from "./lowering/guided.js";
import { firstLatent, Inpainting } from "./lowering/inpainting.js";
import { clamped, drawAt } from "./lowering/sampling.js";
import type { OfRow } from "./lowering/step.js";
import { sumsOf } from "./lowering/sums.js";

export default {
  name: "loop",
  summary: "make the step the body of a loop over the sampler's rows, with cached values carried",
  preserves: "plan",
  // Its body decides at every row anew, by conditions that the loop reads.
  takesMarks: true,
  run(model, { run: given, plan }) {
    const run = withMainNetwork(given, model);
    const calls = new Calls(run);
    const { noise, prologue, body } = calls;
    const steps = run.rows.length;
    const number = inputValue("iteration", { elem: "int64", shape: [] });
    const goesOn = inputValue("goes_on", { elem: "bool", shape: [] });
    const latent = inputValue("steps/latent", { elem: "float", shape: shapeOf(noise) });
    const step = new Iteration(number, steps, prologue, body);
    const { next, histories } = sample(calls, step, latent, sameCalls(run), opsetOf(model));

    const sampled: readonly Carried[] = [{ input: latent, output: next }, ...histories.flatMap(({ carried }) => carried)];
    const outputs = [goesOn, ...sampled.map(({ output }) => output)].map((value) => ({ name: value.name, value }));
    const whole = { name: "step", inputs: [], outputs, nodes: body.nodes, marks: calls.marks };
    const decided = decideBranches(whole, plan.cells, step, new Builder());

    const carried = [...sampled.map(({ input }) => input), ...decided.carried.map(({ input }) => input)];
    const results = [...decided.outputs, ...decided.carried.map(({ output }) => output)];
    const inner: Graph = {
      name: "body",
      inputs: [number, goesOn, ...carried],
      outputs: results.map((value) => ({ name: value.name, value })),
      nodes: decided.nodes,
      marks: [],
    };
    const first = firstLatent(calls, prologue, "steps/first");
    const trips = constant("steps", tensorOf("int64", [], [steps]));
    const node = makeNode({
      opType: "Loop",
      name: "steps",
      inputs: [trips, undefined, first, ...carried.slice(1).map((value) => zeros(prologue, value))],
      outputs: carried.map(({ name, type }, i) => ({ name: i === 0 ? calls.ports.latent : `${name}_last`, type })),
      attributes: new Map([["body", { kind: "graph", value: inner }]]),
    });
    const [last] = node.outputs;
    if (!last) throw new Error("internal: the loop carries nothing");
    return calls.finish([node], last, []);
  },
} satisfies Pass<PlanContext>;

/** The network calls that all rows have in common, as there is only one body. Throws FORM_UNSUPPORTED where rows differ. */
function sameCalls({ rows, borders }: Run): readonly Call[] {
  const text = (calls: readonly Call[]): string => calls.map(({ network, halves }) => `${network}: ${halves.join()}`).join("; ");
  const [first = [], ...others] = rows.map(({ calls }) => calls);
  if (others.some((calls) => text(calls) !== text(first)))
    throw formUnsupported(
      "loop",
      borders.length > 0 ? "not all of its steps call the same network" : "guidance leaves the unconditional half out at some of the steps",
    );
  return first;
}

/** One step of the sampling run: the next latent, and the values that later steps read. */
function sample(
  calls: Calls,
  step: Iteration,
  latent: Value,
  called: readonly Call[],
  opset: number,
): { readonly next: Value; readonly histories: readonly History[] } {
  const { body, run } = calls;
  const { rows } = run.table;
  const { label } = step;
  const perRow = (name: string, weight: OfRow<number>): Weight => step.weight(`${label}/${name}`, weight);
  const scale = perRow("input_scale", (row) => rows[row]?.inputScale ?? 1);
  const seen = body.weightedSum([{ value: latent, weight: scale }], `${label}/scaled`);
  const outputs = calls.at(step, called, seen);
  const guided = new GuidedPrediction(body, run, shapeOf(latent), opset, calls.scale);
  const out = body.weightedSum(
    guided.terms(outputs, step, () => run.prediction.sign),
    `${label}/guided`,
  );

  const sums = sumsOf(rows);
  const histories = [new History("x", latent, sums.next), new History("out", out, sums.next)];
  const termsOf = (of: SumsByRow, name: string): readonly WeightedValue<Weight>[] =>
    histories.flatMap((history) => history.terms(of, step, `${label}/${name}`));
  if (sums.clamped.some((sum) => sum)) {
    const free = body.weightedSum(termsOf(sums.clamped, "history"), `${label}/history`);
    const bound: OfRow<number> = (row) => rows[row]?.m.clip ?? Infinity;
    histories.push(new History("m", clamped(body, free, step, bound), sums.next));
  }
  const draw = drawAt(calls, step);
  const learned: OfRow<LearnedVariance | undefined> = (row) => rows[row]?.next.learned;
  const random = draw && rows.some((_, row) => learned(row)) ? guided.learnedNoise(outputs, draw, learned, step) : draw;
  const noise = random ? [{ value: random, weight: perRow("noise_scale", (row) => rows[row]?.next.noise ?? 0) }] : [];
  const made = body.weightedSum([...termsOf(sums.next, "next"), ...noise], `${label}/${run.original?.mask ? "made" : "next"}`);
  return { next: new Inpainting(calls).blended(made, step, `${label}/next`), histories };
}
