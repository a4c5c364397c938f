/**
 * Errors about samplers, plans and policies, and about the input of passes: code, sentence, place, hint.
 * In alphabetical order of the codes.
 */
import { CompilerError, nearest } from "../ir/diagnostics.js";

export function badAdjustment(site: string, step: number, problem: string): CompilerError {
  return new CompilerError(
    "BAD_ADJUSTMENT",
    2,
    `The plan's adjustment of step ${step} of '${site}' ${problem}.`,
    "At a step that is cached, scale and shift have a finite number for each channel, the last axis of the branch's output.",
    { site, step },
  );
}

export function badCell(key: string, step: number, problem: string): CompilerError {
  return new CompilerError(
    "BAD_CELL",
    2,
    `Step ${step} of '${key}' ${problem}.`,
    'A cell is 1 (compute), 0 (reuse the latest computed value), [[step, weight], …], or { "tokens": share, "by": "mask", "stagger" or "cluster" }.',
    { site: key, step },
  );
}

export function badCurves(group: string, problem: string): CompilerError {
  return new CompilerError(
    "BAD_CURVES",
    2,
    `The error curves of '${group}' cannot be used: ${problem}.`,
    "Calibrate again, with weights that are trained and inputs that are finite.",
    { site: group },
  );
}

export function badJsonField(file: string, field: string, problem: string, near?: string): CompilerError {
  return new CompilerError(
    "BAD_JSON_FIELD",
    2,
    `'${field}' ${problem}.`,
    near === undefined ? "The README describes the form of every file." : `Did you mean '${near}'?`,
    { file },
  );
}

export function badOption(flags: string, problem: string): CompilerError {
  return new CompilerError("BAD_OPTION", 2, `${flags}: ${problem}.`, "See the command's --help.");
}

export function badPlan(source: string, problem: string, instead?: string): CompilerError {
  return new CompilerError(
    "BAD_PLAN",
    2,
    `This is not a plan: ${problem}.`,
    `A plan is an object from branch kinds ("attn"), kinds and blocks ("attn-3") or sites to rows of cells${instead === undefined ? "" : `; ${instead}`}.`,
    { file: source },
  );
}

export function badRouter(file: string, problem: string): CompilerError {
  return new CompilerError(
    "BAD_ROUTER",
    2,
    `The routers do not fit: ${problem}.`,
    "Learning-to-Cache's files have '<step>.prob' for every step: two logits a block, its attention's and its MLP's. Take as many --steps as the routers were trained for, and the network that they were trained on.",
    { file },
  );
}

export function badSamplerTable(row: number, problem: string): CompilerError {
  return new CompilerError(
    "BAD_SAMPLER_TABLE",
    2,
    `Row ${row} of the sampler's table ${problem}.`,
    "A row may use the latents and history values of its own and earlier steps.",
    { step: row },
  );
}

export function badTerm(site: string, step: number, source: number): CompilerError {
  return new CompilerError(
    "BAD_TERM",
    2,
    `The plan lets step ${step} of ${site} read step ${source}, which has no value there.`,
    "Terms point at earlier steps that compute, for some tokens or for all.",
    { site, step },
  );
}

export function batchAsDim(dim: string): CompilerError {
  return new CompilerError(
    "BATCH_AS_DIM",
    2,
    `'${dim}' is the dimension of the batch, which guidance may double.`,
    `Set it with --batch N, or "batch" in recipe.json.`,
  );
}

/** `node`: where two batches differ. */
export function batchFixed(problem: string, node?: { readonly name: string; readonly opType: string }): CompilerError {
  return new CompilerError(
    "BATCH_FIXED",
    3,
    `This run is not the same for every batch: ${node ? `${node.opType} '${node.name}': ` : ""}${problem}.`,
    'Export with a symbolic batch, and make inputs of what is fixed and differs from latent to latent (in recipe.json "calibrate" in place of "fix", "uncond": { "<input>": { "input": true } }); or leave out --runtime batch.',
    node ? { node: node.name } : {},
  );
}

export function batchMismatch(found: number, batch: number, form: string): CompilerError {
  const fits = form === "batched" ? found / 2 : found;
  return new CompilerError(
    "BATCH_MISMATCH",
    2,
    `The model was exported for ${found} rows; batch ${batch} with guidance '${form}' needs ${form === "batched" ? 2 * batch : batch}.`,
    Number.isInteger(fits)
      ? `Use --batch ${fits}, or export with a symbolic batch.`
      : "Export with a symbolic batch, or choose another form of guidance.",
  );
}

export function degenerateTimes(steps: number, problem: string): CompilerError {
  return new CompilerError(
    "DEGENERATE_TIMES",
    2,
    `The scheduler has no sensible grid of ${steps} steps: ${problem}.`,
    "Choose another number of steps (one more or less often helps) or another timestep_spacing.",
  );
}

export function formUnsupported(form: string, problem: string): CompilerError {
  return new CompilerError(
    "FORM_UNSUPPORTED",
    3,
    `The form '${form}' cannot say this run: ${problem}.`,
    "Compile it in the form 'unrolled', which is the default.",
  );
}

export function planFirstStep(site: string): CompilerError {
  return new CompilerError(
    "PLAN_FIRST_STEP",
    2,
    `The plan does not compute ${site} at the first step, where there is nothing to reuse yet.`,
    "Begin every row with 1.",
    { site, step: 0 },
  );
}

export function planFormat(format: string, problem: string, hint?: string): CompilerError {
  return new CompilerError(
    "PLAN_FORMAT",
    2,
    `The plan and the format '${format}' do not go together: ${problem}.`,
    hint ?? "A plan.json, written without --format, holds every plan that can be compiled.",
  );
}

/** `what` is "model", "cut", "sampler", …; `planned` is that of the plan, `found` that of the run. */
export function planMismatch(what: string, planned: string, found: string): CompilerError {
  return new CompilerError(
    "PLAN_MISMATCH",
    2,
    `The plan is of another ${what}: ${planned}, not ${found}.`,
    "Make a plan for this run (plan, from a trace of it), or give the options that the plan was made with.",
  );
}

export function planLength(key: string, found: number, steps: number): CompilerError {
  return new CompilerError(
    "PLAN_LENGTH",
    2,
    `The plan has ${found} cells for '${key}'; the run has ${steps} steps.`,
    "A plan belongs to one number of steps: choose the same with --steps, or plan again.",
    { site: key },
  );
}

export function policyNeedsModel(policy: string): CompilerError {
  return new CompilerError(
    "POLICY_NEEDS_MODEL",
    2,
    `The policy '${policy}' measures runs of the model, and there is no model.`,
    "Say with --model which one the trace was made from.",
  );
}

export function policyNeedsTrace(policy: string): CompilerError {
  return new CompilerError(
    "POLICY_NEEDS_TRACE",
    2,
    `The policy '${policy}' chooses by measured errors, and there are none.`,
    `Calibrate first (smoothcc calibrate MODEL -o trace.json), and plan from the trace: smoothcc plan trace.json --policy ${policy} -o plan.json.`,
  );
}

export function reservedName(name: string): CompilerError {
  return new CompilerError(
    "RESERVED_NAME",
    3,
    `An input of the network is called '${name}', which is what the compiled run calls the unconditional half's value of another input.`,
    `Give that value in recipe.json ("guidance": { "uncond": … }) in place of { "input": true }, or export the network with another name for '${name}'.`,
    { value: name },
  );
}

export function samplerOption(scheduler: string, option: string, problem: string): CompilerError {
  return new CompilerError(
    "SAMPLER_OPTION",
    2,
    `${scheduler} ${problem} ('${option}').`,
    option === "start"
      ? `Choose another first step (--start, or "start" in recipe.json), or a scheduler without a history: DDIM, Euler or DDPM.`
      : option === "steps"
        ? `Choose another number of steps: --steps, or "steps" in recipe.json.`
        : `Change "sampling": { "${option}": … } in recipe.json as said, or leave it out where it is not needed.`,
  );
}

export function tokensMixed(site: string, step: number, mixer: string): CompilerError {
  return new CompilerError(
    "TOKENS_MIXED",
    2,
    `The plan computes some tokens of '${site}' at step ${step}, and they cannot be computed apart: ${mixer} mixes them.`,
    "Compute that branch for all of its tokens, or cache it whole.",
    { site, step },
  );
}

export function unboundDim(dim: string | null, input: string, axis: number): CompilerError {
  return new CompilerError(
    "UNBOUND_DIM",
    2,
    dim === null
      ? `Axis ${axis} of input '${input}' has no size, and no name by which it could be given one.`
      : `Dimension '${dim}' of input '${input}' has no size.`,
    dim === null
      ? `Name it when the model is exported (dynamic_axes or dynamic_shapes of torch.onnx.export), or fix the input's shape: python -m onnxruntime.tools.make_dynamic_shape_fixed --input_name ${input} --input_shape 1,… model.onnx fixed.onnx`
      : `Give it one: --dim ${dim}=N, or "dims" in recipe.json.`,
    { value: input },
  );
}

export function unknownScheduler(className: string, known: readonly string[]): CompilerError {
  const near = nearest(className, known);
  return new CompilerError(
    "UNKNOWN_SCHEDULER",
    3,
    `There is no scheduler '${className}'. Known: ${known.join(", ")}.`,
    `${near === undefined ? "" : `Did you mean '${near}'? `}Any other sampler can be given as a table, whose form is that of 'smoothcc sampler --json', or as a file of your own with --extension.`,
  );
}

export function unsupportedScheduler(className: string, setting: string, reason: string, hint: string): CompilerError {
  return new CompilerError("UNSUPPORTED_SCHEDULER", 3, `${className} with ${setting} is not supported: ${reason}.`, hint);
}
