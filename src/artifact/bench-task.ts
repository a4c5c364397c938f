/** What `bench` asks of its worker processes, and what they answer. */
import { z } from "zod";
import { type ElementType, isElementType } from "../../ir/types.js";

const runtimeKeys = { device: z.string().optional(), threads: z.number().optional() };

const tensorSchema = z.strictObject({
  elem: z.custom<ElementType>((elem) => typeof elem === "string" && isElementType(elem)),
  shape: z.array(z.int()),
  content: z.strictObject({ kind: z.literal("bytes"), bytes: z.instanceof(Uint8Array) }),
});

/** A model file and its inputs for every run. */
const modelTaskSchema = z.strictObject({ model: z.string(), feeds: z.map(z.string(), tensorSchema), ...runtimeKeys });
/** The loop over the step of an artifact's folder. */
const loopTaskSchema = z.strictObject({ loopOf: z.string(), extensions: z.array(z.string()).readonly().optional(), ...runtimeKeys });

/** What a worker has to load. */
export const taskSchema = z.union([modelTaskSchema, loopTaskSchema]);
export type ModelTask = z.infer<typeof modelTaskSchema>;
export type LoopTask = z.infer<typeof loopTaskSchema>;

/** What a worker answers: how long loading took, then after each run how long it took and the memory so far. */
export const answerSchema = z.union([
  z.strictObject({ loadMs: z.number() }),
  z.strictObject({ runMs: z.number(), rssBytes: z.number() }),
  z.strictObject({ problem: z.string() }),
]);
export type Answer = z.infer<typeof answerSchema>;
