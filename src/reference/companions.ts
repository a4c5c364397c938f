/** The companions of a run as their files stand: what encoders give before the loop, and what a decoder makes of its latent. */
import type { Half } from "../../ir/dit.js";
import { type TensorData, tensorFrom, tensorNumbers, tensorOf } from "../../ir/tensor.js";
import type { ElementType } from "../../ir/types.js";
import {
  type Condition,
  differingValues,
  givenConditions,
  LATENT_VALUE,
  latentShape,
  resultsOf,
  valueName,
} from "../../schedules/index.js";
import type { Job, OpenCompanion } from "../job/index.js";
import type { Session, Sessions } from "../runtime/index.js";
import { unroundedPixels } from "./pixels.js";

/** Values of a run by name; those of the unconditional half as `valueName` has them. */
type Values = ReadonlyMap<string, TensorData>;

/** The values of a run that stand before its first step: the conditions that are given, and those that its encoders give. Throws what running them throws. */
export async function encoded(job: Job, given: Values, sessions: Sessions): Promise<Values> {
  const { before } = job.network.companions;
  const own = givenConditions(job.run);
  const values = new Map(given);
  const differing = differingValues(before, (name) => own.get(name)?.halves.cond !== own.get(name)?.halves.uncond);
  for (const companion of before) {
    const halves: readonly Half[] = [...companion.outputs.values()].some((value) => differing.has(value)) ? ["cond", "uncond"] : ["cond"];
    const session = await sessionOf(companion, sessions);
    for (const half of halves) for (const [name, value] of await called(session, companion, half, values, own)) values.set(name, value);
  }
  // The network may want them in another type.
  for (const [name, { type }] of job.run.conditions) {
    for (const of of [name, valueName(name, "uncond")]) {
      const value = values.get(of);
      if (value && type) values.set(of, inType(value, type.elem));
    }
  }
  return values;
}

/**
 * What the companions behind a run make of its latent, [batch, …latent]: the outputs of the artifact beside the latent itself; but for pixels,
 * which are not rounded (`unroundedPixels`).
 */
export async function decoded(job: Job, latent: Float32Array, given: Values, sessions: Sessions): Promise<Values> {
  const { after } = job.network.companions;
  const values = new Map([...given, [LATENT_VALUE, tensorFrom("float", latentShape(job.run), latent)]]);
  const made = async (companion: OpenCompanion): Promise<Values> =>
    companion.pixelRange
      ? unrounded(companion, companion.pixelRange, values)
      : called(await sessionOf(companion, sessions), companion, "cond", values, givenConditions(job.run));
  for (const companion of after) {
    for (const [name, value] of await made(companion)) values.set(name, value);
  }
  const results = resultsOf(job.network.companions);
  return new Map([...values].filter(([name]) => results.includes(name)));
}

/** What stands for the pixels of a companion that makes them. */
function unrounded({ inputs, outputs }: OpenCompanion, range: readonly [number, number], values: Values): Values {
  const [read] = [...inputs.values()].flatMap((value) => values.get(value) ?? []);
  if (!read) throw new Error("internal: there are no values to make pixels of");
  return new Map([...outputs.values()].map((value) => [value, unroundedPixels(read, range)]));
}

function sessionOf({ name, file, read, spec }: OpenCompanion, sessions: Sessions): Promise<Session> {
  // Graphs of two texts may have one name.
  return sessions.of(file ?? spec.graph ?? name, () => read);
}

/** One call of a companion: what it gives, by the name under which the half has it. */
async function called(
  session: Session,
  { read, inputs, outputs }: OpenCompanion,
  half: Half,
  values: Values,
  conditions: ReadonlyMap<string, Condition>,
): Promise<Values> {
  const feeds = new Map<string, TensorData>();
  for (const { name, type } of read.graph.inputs) {
    const value = inputs.get(name);
    if (value === undefined) continue;
    const data = values.get(valueName(value, half)) ?? fixed(conditions.get(value), half) ?? values.get(value);
    if (!data) throw new Error(`internal: there is no value for '${value}'`);
    feeds.set(name, type ? inType(data, type.elem) : data);
  }
  const results = await session.run(feeds);
  return new Map(
    Array.from(outputs, ([name, value]) => [valueName(value, half), results.get(name)] as const).flatMap(([name, data]) =>
      data ? [[name, data]] : [],
    ),
  );
}

function inType(data: TensorData, elem: ElementType): TensorData {
  return data.elem === elem ? data : tensorOf(elem, data.shape, tensorNumbers(data));
}

function fixed(condition: Condition | undefined, half: Half): TensorData | undefined {
  const source = condition?.halves[half];
  return source?.kind === "constant" ? source.data : undefined;
}
