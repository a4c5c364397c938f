/** The companions of a run as their files stand: what encoders give before the loop, and what a decoder makes of its latent. */
import type { Half } from "../../ir/dit.js";
import { type TensorData, tensorFrom, tensorNumbers, tensorOf } from "../../ir/tensor.js";
import { type Condition, differingValues, LATENT_VALUE, latentShape, givenConditions, resultsOf, valueName } from "../../schedules/index.js";
import type { Job, OpenCompanion } from "../job/index.js";
import type { Session, Sessions } from "../runtime/index.js";

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
  return values;
}

/** What the companions behind a run make of its latent, [batch, …latent]: the outputs of the artifact beside the latent itself. */
export async function decoded(job: Job, latent: Float32Array, given: Values, sessions: Sessions): Promise<Values> {
  const { after } = job.network.companions;
  const values = new Map([...given, [LATENT_VALUE, tensorFrom("float", latentShape(job.run), latent)]]);
  for (const companion of after) {
    const session = await sessionOf(companion, sessions);
    for (const [name, value] of await called(session, companion, "cond", values, givenConditions(job.run))) values.set(name, value);
  }
  const results = resultsOf(job.network.companions);
  return new Map([...values].filter(([name]) => results.includes(name)));
}

function sessionOf({ name, file, read }: OpenCompanion, sessions: Sessions): Promise<Session> {
  return sessions.of(file ?? name, () => read);
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
    feeds.set(name, !type || data.elem === type.elem ? data : tensorOf(type.elem, data.shape, tensorNumbers(data)));
  }
  const results = await session.run(feeds);
  return new Map(
    Array.from(outputs, ([name, value]) => [valueName(value, half), results.get(name)] as const).flatMap(([name, data]) =>
      data ? [[name, data]] : [],
    ),
  );
}

function fixed(condition: Condition | undefined, half: Half): TensorData | undefined {
  const source = condition?.halves[half];
  return source?.kind === "constant" ? source.data : undefined;
}
