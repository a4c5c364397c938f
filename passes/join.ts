/**
 * Joins a run with its companions: encoders in front of it, once for each half of the guidance that has values of its own, and a decoder
 * behind it. From then on they are one graph, so that what folds and is shared does so across the joint.
 */
import { Builder, elemOf } from "../ir/build.js";
import type { Half } from "../ir/dit.js";
import { constant, inputValue, type Model, type Node, type Port, type Value } from "../ir/graph.js";
import { rewrite } from "../ir/rewrite.js";
import {
  type Companion,
  type Companions,
  givenConditions,
  LATENT_VALUE,
  resultsOf,
  type Run,
  typeFor,
  valueName,
} from "../schedules/index.js";
import { clone, operandsAt } from "./lowering/copy.js";
import type { Pass } from "./pass.js";

export default {
  name: "join",
  summary: "put encoders in front of the run and a decoder behind it",
  preserves: "bits",
  run(model, { run }) {
    return run.companions && run.companions.before.length + run.companions.after.length > 0 ? joined(model, run, run.companions) : model;
  },
} satisfies Pass;

function joined(model: Model, run: Run, companions: Companions): Model {
  const { graph, dit } = model;
  const [latent] = graph.outputs;
  if (!latent) throw new Error("internal: a run without an output");
  const joint = new Joint(run, new Map(graph.inputs.map((input) => [input.name, input])));
  const front = new Builder();
  for (const companion of companions.before) joint.placeForHalves(companion, front);
  const fed = new Map<Value, Value>();
  for (const input of graph.inputs) {
    const given = joint.given.get(input.name);
    if (given) fed.set(input, front.cast(given, elemOf(input), `${input.name}/cast`));
  }
  const behind = new Builder();
  joint.given.set(LATENT_VALUE, latent.value);
  for (const companion of companions.after) joint.place(companion, "cond", behind);
  const results = resultsOf(companions).map((name): Port => ({ name, value: joint.valueOf(name, "cond") }));
  const [, ...stops] = graph.outputs;
  const outputs = [...(companions.keepLatent ? [latent] : []), ...stops, ...results];
  const whole = rewrite({ ...graph, nodes: [...graph.nodes, ...behind.nodes], outputs }, () => undefined, fed);
  const inputs = joint.inputsIn(graph.inputs, fed);
  const conditions = inputs
    .filter((input) => !graph.inputs.includes(input) || dit?.conditions.includes(input.name))
    .map(({ name }) => name);
  return {
    ...model,
    dit: dit && { ...dit, conditions, prediction: outputs[0]?.name ?? dit.prediction },
    opsets: companions.before.concat(companions.after).reduce((all, { model: { opsets } }) => new Map([...opsets, ...all]), model.opsets),
    graph: { ...whole, inputs, nodes: [...front.nodes, ...whole.nodes] },
  };
}

/** The values of a run that companions read and give. */
class Joint {
  /** What companions have given so far, by the name under which a half has it. */
  readonly given = new Map<string, Value>();
  private readonly added: Value[] = [];

  private readonly conditions: ReturnType<typeof givenConditions>;

  constructor(
    run: Run,
    /** The inputs of the run, by name. */
    private readonly inputs: Map<string, Value>,
  ) {
    this.conditions = givenConditions(run);
  }

  /** The inputs of the run as it was that nothing is given for, and those that companions read. */
  inputsIn(before: readonly Value[], fed: ReadonlyMap<Value, Value>): readonly Value[] {
    return [...before.filter((input) => !fed.has(input)), ...this.added];
  }

  /** Places a companion for the conditional half, and again for the other one if that has values of its own. */
  placeForHalves(companion: Companion, into: Builder): void {
    this.place(companion, "cond", into);
    const read = [...companion.inputs.values()];
    if (read.some((value) => this.valueOf(value, "uncond") !== this.valueOf(value, "cond"))) this.place(companion, "uncond", into);
  }

  place({ name, model, uncondModel = model, inputs, outputs }: Companion, half: Half, into: Builder): void {
    const { graph } = half === "uncond" ? uncondModel : model;
    const prefix = half === "cond" ? `${name}/` : `${name}/uncond/`;
    const own = new Map<Value, Value>();
    for (const input of graph.inputs) {
      const value = inputs.get(input.name);
      if (value !== undefined) own.set(input, into.cast(this.valueOf(value, half), elemOf(input), `${prefix}${input.name}`));
    }
    const at = (value: Value): Value | undefined => own.get(value) ?? (value.data ? value : undefined);
    for (const node of graph.nodes) {
      const made: Node = clone(node, operandsAt(node, at), prefix);
      into.nodes.push(made);
      for (const [i, output] of node.outputs.entries()) own.set(output, made.outputs[i] ?? output);
    }
    for (const { name: output, value } of graph.outputs) {
      const given = outputs.get(output);
      const made = at(value);
      if (given !== undefined && made) this.given.set(valueName(given, half), made);
    }
  }

  /** What a half sees under a name: what a companion gives, or else an input of the run. */
  valueOf(name: string, half: Half): Value {
    const given = this.given.get(valueName(name, half)) ?? this.given.get(name);
    if (given) return given;
    const condition = this.conditions.get(name);
    if (!condition) throw new Error(`internal: nothing gives '${name}'`);
    const source = condition.halves[half];
    if (source.kind === "constant") return this.constantOf(source.data, name);
    const known = this.inputs.get(source.name);
    if (known) return known;
    const input = inputValue(source.name, typeFor(condition, half));
    this.inputs.set(source.name, input);
    this.added.push(input);
    return input;
  }

  private readonly constants = new Map<unknown, Value>();

  private constantOf(data: NonNullable<Value["data"]>, name: string): Value {
    const known = this.constants.get(data) ?? constant(name, data);
    this.constants.set(data, known);
    return known;
  }
}
