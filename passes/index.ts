/** The passes, which turn a model into another, and the forms in which runs are emitted. */
import { forms } from "./forms/index.js";
import inferTypes from "./infer-types.js";
import instrument from "./instrument.js";
import type { BindContext, Pass, PlanContext } from "./pass.js";
import { BIND_PASSES, SETTLE_PASSES, STEP_PASSES } from "./stages.js";

export { untyped } from "./bind.js";
export { atBatch, BATCH, freeBatch, numberOf } from "./freeing/free-batch.js";
export { segmented } from "./lowering/segments.js";
export { canRaise, raised } from "./fusing/opset.js";
export { staysForeign } from "./decompose-contrib-ops.js";
export type { Form, Lowered, Lowering } from "./form.js";
export { DEFAULT_FORM, formNamed, forms } from "./forms/index.js";
export * from "./pass.js";
export * from "./stages.js";
export { isWidened, runnable } from "./widen.js";
export { inferTypes, instrument };

/** A context that every pass can run in. */
export type AnyContext = BindContext & PlanContext;

const all: readonly Pass<AnyContext>[] = [
  instrument,
  ...BIND_PASSES,
  ...SETTLE_PASSES,
  ...STEP_PASSES,
  ...[...forms.values()].flatMap(({ passes }) => passes),
];

/** Every pass, by name, in alphabetical order. */
export const passes: ReadonlyMap<string, Pass<AnyContext>> = new Map(
  all.map((pass): [string, Pass<AnyContext>] => [pass.name, pass]).sort(([a], [b]) => (a < b ? -1 : 1)),
);
