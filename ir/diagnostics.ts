/** Every sentence that a user can read about a problem: code, sentence, place, hint; in alphabetical order of the codes. */

/** DESIGN: 1 not good enough, 2 usage, 3 model not supported, 4 files, 5 runtime, 130 cancelled. */
export type ExitCode = 1 | 2 | 3 | 4 | 5 | 130;

export interface Place {
  readonly file?: string | undefined;
  readonly node?: string | undefined;
  readonly value?: string | undefined;
  readonly pass?: string | undefined;
  readonly step?: number | undefined;
  readonly site?: string | undefined;
}

/** A problem that a person can do something about. Anything else that is thrown is our bug. */
export class CompilerError extends Error {
  constructor(
    readonly code: string,
    readonly exitCode: ExitCode,
    message: string,
    readonly hint: string,
    readonly where: Place = {},
    options?: ErrorOptions,
  ) {
    super(message, options);
    this.name = "CompilerError";
  }
}

export function ambiguousPort(role: string, option: string, candidates: readonly string[]): CompilerError {
  return new CompilerError(
    "AMBIGUOUS_PORT",
    3,
    `More than one ${role} is possible: ${candidates.join(", ")}.`,
    `Name it as "${option}" in recipe.json.`,
  );
}

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
    "A cell is 1 (compute), 0 (reuse the latest computed value) or [[step, weight], …].",
    { site: key, step },
  );
}

export function badChannels(channels: readonly number[] | undefined, axis: number, have: number, need: number): CompilerError {
  const asked = channels ? `channels ${channels.join(" to ")}` : "all channels";
  return new CompilerError(
    "BAD_CHANNELS",
    2,
    `The prediction takes ${asked} of axis ${axis}, where the output has ${have} and the latent ${need}.`,
    `Set "prediction": { "channels": [0, ${need}], "channelAxis": ${axis} } in recipe.json to what the network predicts.`,
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

export function badExtension(file: string, problem: string): CompilerError {
  return new CompilerError(
    "BAD_EXTENSION",
    2,
    `The file cannot be used as an extension: ${problem}.`,
    "It is an ES module whose default export has a name of its own and is a recogniser (recognise), a sampler (className, config, takes, table), a policy (needs, options, choose) or a pass (stage, preserves, run).",
    { file },
  );
}

export function badGrid(input: string, shape: readonly number[], sizes: readonly (number | null)[]): CompilerError {
  return new CompilerError(
    "BAD_GRID",
    2,
    `The input '${input}' [${shape.join(", ")}] does not hold the positions of a grid of [${sizes.map((size) => size ?? "null").join(", ")}].`,
    `Name the sizes, one for each of the last axis and with the product of the axis before it: "inputs": { "${input}": { "fix": { "grid": [1, height, width] } } } in recipe.json; or give the positions as a .npy file.`,
    { value: input },
  );
}

export function badGuidance(key: string, problem: string, hint: string): CompilerError {
  return new CompilerError("BAD_GUIDANCE", 2, `The recipe's "guidance.${key}" ${problem}.`, hint);
}

export function badJson(file: string, problem: string): CompilerError {
  return new CompilerError("BAD_JSON", 4, `The file is not JSON: ${problem}`, "Check that it is the file you meant and that it is whole.", {
    file,
  });
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

export function badNpy(file: string, problem: string): CompilerError {
  return new CompilerError("BAD_NPY", 4, `The file is not a usable .npy array: ${problem}.`, "Save it with numpy.save(file, array).", {
    file,
  });
}

export function badNpz(file: string, problem: string): CompilerError {
  return new CompilerError("BAD_NPZ", 4, `This .npz file cannot be read: ${problem}.`, "Write it with numpy.savez.", { file });
}

export function badOption(flags: string, problem: string): CompilerError {
  return new CompilerError("BAD_OPTION", 2, `${flags}: ${problem}.`, "See the command's --help.");
}

export function badPlan(source: string, problem: string): CompilerError {
  return new CompilerError(
    "BAD_PLAN",
    2,
    `This is not a plan: ${problem}.`,
    'A plan is an object from branch kinds ("attn"), kinds and blocks ("attn-3") or sites to rows of cells.',
    { file: source },
  );
}

export function badRouter(file: string, problem: string): CompilerError {
  return new CompilerError(
    "BAD_ROUTER",
    2,
    `The routers do not fit: ${problem}.`,
    "Learning-to-Cache's files have '<step>.prob' for every step: two logits a block, its attention's and its MLP's.",
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
    "Terms point at earlier steps that compute.",
    { site, step },
  );
}

export function badTorchFile(file: string, problem: string): CompilerError {
  return new CompilerError(
    "BAD_TORCH_FILE",
    4,
    `The file cannot be read as one of torch's: ${problem}.`,
    "Write a dictionary of contiguous CPU tensors with torch.save(tensors, file), by torch 1.6 or later.",
    { file },
  );
}

export function badTrace(file: string, problem: string): CompilerError {
  return new CompilerError("BAD_TRACE", 2, `The trace cannot be used: ${problem}.`, "Calibrate again.", { file });
}

export function badUsage(problem: string, suggestion?: string): CompilerError {
  return new CompilerError(
    "BAD_USAGE",
    2,
    `${problem.charAt(0).toUpperCase()}${problem.slice(1)}.`,
    suggestion ?? "`smoothcc --help` lists the commands, `smoothcc <command> --help` the options of one.",
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

export function benchFailed(problem: string): CompilerError {
  return new CompilerError(
    "BENCH_FAILED",
    5,
    `A timed process failed: ${problem.replace(/\.$/, "")}.`,
    "Run the artifact with `smoothcc run` to see whether it loads at all.",
  );
}

export function cancelled(): CompilerError {
  return new CompilerError("CANCELLED", 130, "Cancelled.", "Nothing half-written was left behind.");
}

export function degenerateTimes(steps: number, problem: string): CompilerError {
  return new CompilerError(
    "DEGENERATE_TIMES",
    2,
    `The scheduler has no sensible grid of ${steps} steps: ${problem}.`,
    "Choose another number of steps (one more or less often helps) or another timestep_spacing.",
  );
}

export function deviceMissing(device: string, problem: string): CompilerError {
  return new CompilerError(
    "DEVICE_MISSING",
    5,
    `The runtime cannot use '${device}': ${problem}`,
    "The README says how to add CUDA to onnxruntime-node; --device cpu always works.",
  );
}

export function duplicateName(name: string, where: Place): CompilerError {
  return new CompilerError(
    "DUPLICATE_NAME",
    3,
    `More than one value is called '${name}'.`,
    "Run onnx.checker.check_model on the file, and export the model again.",
    where,
  );
}

export function externalDataMalformed(file: string, tensor: string, problem: string): CompilerError {
  return new CompilerError(
    "EXTERNAL_DATA_MALFORMED",
    4,
    `The address of the external data of '${tensor}' is wrong: ${problem}.`,
    "Save the model again with onnx.save, which writes a location, an offset and a length.",
    { file, value: tensor },
  );
}

export function externalDataMissing(file: string, tensor: string, problem: string): CompilerError {
  return new CompilerError(
    "EXTERNAL_DATA_MISSING",
    4,
    `The weights file of '${tensor}' cannot be read: ${problem}`,
    "Put it where the model expects it: weights files move together with their model.",
    { file, value: tensor },
  );
}

export function externalDataOutside(file: string, tensor: string, location: string): CompilerError {
  return new CompilerError(
    "EXTERNAL_DATA_OUTSIDE",
    4,
    `The weights of '${tensor}' are said to be in '${location}', which is not in the model's folder.`,
    "Copy the weights file into the model's folder and save the model with a relative location.",
    { file, value: tensor },
  );
}

export function externalDataShort(file: string, needed: number, tensor?: string): CompilerError {
  return new CompilerError(
    "EXTERNAL_DATA_SHORT",
    4,
    `The weights file ends before byte ${needed}${tensor === undefined ? "" : `, where '${tensor}' ends`}.`,
    "It is cut off or belongs to another export: copy or export the model again.",
    { file, value: tensor },
  );
}

export function externalDataSize(file: string, tensor: string, length: number, wanted: number): CompilerError {
  return new CompilerError(
    "EXTERNAL_DATA_SIZE",
    4,
    `'${tensor}' is said to have ${length} bytes of external data; its type and shape take ${wanted}.`,
    "The model and its weights do not fit together: export the model again.",
    { file, value: tensor },
  );
}

export function fileExists(file: string): CompilerError {
  return new CompilerError(
    "FILE_EXISTS",
    4,
    "The file or folder is there already.",
    "Choose another place, or overwrite it with --force.",
    { file },
  );
}

export function fileMissing(file: string, problem: string): CompilerError {
  return new CompilerError("FILE_MISSING", 4, `The file cannot be read: ${problem}`, "Check the path.", { file });
}

export function fileNotWritten(file: string, problem: string): CompilerError {
  return new CompilerError(
    "FILE_NOT_WRITTEN",
    4,
    `The file cannot be written: ${problem}`,
    "Check that the folder is there, that it may be written to and that there is room.",
    { file },
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

export function fractionalTime(sampler: string, timestep: number, input: string, elem: string): CompilerError {
  return new CompilerError(
    "FRACTIONAL_TIME",
    2,
    `${sampler} runs at times such as ${timestep}, and the network's time input is of type ${elem}.`,
    "Choose a spacing with whole timesteps, or export the network with a float time.",
    { value: input },
  );
}

export function graphCycle(file: string, node: string, value: string): CompilerError {
  return new CompilerError(
    "GRAPH_CYCLE",
    3,
    `'${value}' is computed from itself.`,
    "Run onnx.checker.check_model on the file, and export the model again.",
    { file, node, value },
  );
}

export function inputNumber(input: string, elem: string, found: number): CompilerError {
  return new CompilerError(
    "INPUT_NUMBER",
    2,
    `Input '${input}' has the type ${elem}, which cannot hold ${found}.`,
    "Give numbers that the type has; nothing is rounded here.",
    { value: input },
  );
}

export function inputShapeMismatch(input: string, wanted: readonly (number | string | null)[], found: readonly number[]): CompilerError {
  return new CompilerError(
    "INPUT_SHAPE_MISMATCH",
    2,
    `Input '${input}' has the shape [${wanted.join(", ")}]; what was given has [${found.join(", ")}].`,
    "Give an array of that shape, one row of its batch for all rows, or one value to fill it with.",
    { value: input },
  );
}

export function missingExtension(name: string): CompilerError {
  return new CompilerError(
    "MISSING_EXTENSION",
    2,
    `This was made with '${name}', which is no part of smoothcc.`,
    "Name the file that has it with --extension; it is code that will run, so look at where it comes from.",
  );
}

export function missingInput(input: string, shape: readonly number[]): CompilerError {
  return new CompilerError(
    "MISSING_INPUT",
    2,
    `Nothing says what the input '${input}' [${shape.join(", ")}] gets.`,
    `Give it with --input ${input}=VALUE or --input ${input}=FILE.npy, under "inputs" in recipe.json, or in a diffusers folder as calibrate/${input}.npy (axis 0 counts samples).`,
    { value: input },
  );
}

export function missingOption(flag: string, reason: string): CompilerError {
  return new CompilerError("MISSING_OPTION", 2, `${flag} is missing: ${reason}.`, "See the command's --help.");
}

export function modelCorrupt(file: string | undefined, problem: string): CompilerError {
  return new CompilerError(
    "MODEL_CORRUPT",
    4,
    `The model is damaged or cut off: ${problem}.`,
    "Compare its size with the original's, and copy or export it again.",
    { file },
  );
}

export function modelMalformed(violations: string, where: Place): CompilerError {
  return new CompilerError(
    "MODEL_MALFORMED",
    3,
    `The graph is not well-formed:\n${violations}`,
    "Run onnx.checker.check_model on the file, and export the model again.",
    where,
  );
}

export function modelTooLarge(file: string | undefined, bytes: number): CompilerError {
  return new CompilerError(
    "MODEL_TOO_LARGE",
    4,
    `The model takes ${bytes} bytes; a file of this format has less than 2 GiB.`,
    "Keep the weights in external data.",
    { file },
  );
}

export function nameClash(name: string): CompilerError {
  return new CompilerError(
    "NAME_CLASH",
    3,
    `Two different values must both be called '${name}': inputs, outputs and what subgraphs read keep their names.`,
    "Rename the input or output, or export the model without control flow.",
    { value: name },
  );
}

export function notAnArtifact(folder: string): CompilerError {
  return new CompilerError(
    "NOT_AN_ARTIFACT",
    4,
    "The folder has no manifest.json.",
    "Name a folder that `smoothcc build` or `smoothcc compile` wrote.",
    { file: folder },
  );
}

export function notAModel(path: string): CompilerError {
  return new CompilerError(
    "NOT_A_MODEL",
    4,
    "The folder has no recipe.json, and neither model_index.json nor transformer/config.json.",
    "MODEL is an .onnx file, a folder with a recipe.json that names one, or a folder as diffusers saves it, with transformer/model.onnx.",
    { file: path },
  );
}

export function notAPicture(shape: readonly number[], problem: string): CompilerError {
  return new CompilerError(
    "NOT_A_PICTURE",
    2,
    `A latent of the shape [${shape.join(", ")}] cannot be drawn: ${problem}.`,
    'A picture is [batch, channels, height, width]; for other latents leave out --png and set "display": { "kind": "none" } in recipe.json.',
  );
}

export function notFinite(found: number, all: number): CompilerError {
  return new CompilerError(
    "NOT_FINITE",
    1,
    `The result is of no use: ${found} of its ${all} numbers are infinite or no numbers at all.`,
    "Something overflows on the way: look for inputs or a guidance scale that are too large, or a network that needs --precision fp32; `smoothcc verify` says whether the original step does the same.",
  );
}

export function notOnnx(file: string, reason: string): CompilerError {
  return new CompilerError("NOT_ONNX", 4, `This is no ONNX model: ${reason}.`, "Give the .onnx file that the exporter wrote.", { file });
}

export function notRecognised(what: string, hint: string, node?: string): CompilerError {
  return new CompilerError("NOT_RECOGNISED", 3, what, hint, { node });
}

export function notReplaceable(path: string, problem: string): CompilerError {
  return new CompilerError(
    "NOT_REPLACEABLE",
    4,
    `What is there is not overwritten, even with --force: ${problem}.`,
    "Choose another place, or move what is there out of the way.",
    { file: path },
  );
}

export function noKernels(type: string, device: string): CompilerError {
  return new CompilerError(
    "NO_KERNELS",
    5,
    `The runtime cannot compute in ${type} on '${device}'.`,
    "Give --device cuda, or build and compile with --precision fp16 or fp32.",
  );
}

export function noScheduler(): CompilerError {
  return new CompilerError(
    "NO_SCHEDULER",
    2,
    "Nothing says which sampler to use.",
    'Give --scheduler scheduler_config.json (as diffusers saves it), or "scheduler" in recipe.json.',
  );
}

export function noVariance(sampler: string, have: number, need: number): CompilerError {
  return new CompilerError(
    "NO_VARIANCE",
    2,
    `The sampler ${sampler} has learned noise, but the network's ${have} channels leave no ${need} after those of the prediction.`,
    'Choose a fixed "variance_type" in the scheduler\'s configuration, or correct "prediction.channels" in the recipe.',
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

export function planFormat(format: string, problem: string): CompilerError {
  return new CompilerError(
    "PLAN_FORMAT",
    2,
    `The plan and the format '${format}' do not go together: ${problem}.`,
    "A plan.json, written without --format, holds every plan that can be compiled.",
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

export function planSavesNothing(): CompilerError {
  return new CompilerError(
    "PLAN_SAVES_NOTHING",
    2,
    "The plan computes every branch at every step.",
    "Raise the threshold or lower the share; --no-cache compiles the plain model on purpose.",
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
    "Calibrate first, and plan from the trace.",
  );
}

export function predictionShape(found: readonly number[], wanted: readonly number[]): CompilerError {
  return new CompilerError(
    "PREDICTION_SHAPE",
    3,
    `The prediction has the shape [${found.join(", ")}], the latent [${wanted.join(", ")}].`,
    "They may differ in the channels only: export the network so that it predicts what the sampler works on, or name another output.",
  );
}

export function randomNode(opType: string, node: string): CompilerError {
  return new CompilerError(
    "RANDOM_NODE",
    3,
    `The network draws random numbers of its own (${opType}).`,
    "Export it in evaluation mode (`model.eval()`), so that dropout is off; the sampler's noise is an input of the compiled run.",
    { node },
  );
}

export function reservedName(name: string): CompilerError {
  return new CompilerError(
    "RESERVED_NAME",
    3,
    `An input of the network is called '${name}', which is the name of another port of the compiled run.`,
    "Export the network with another name for that input: 'latent' is the run's result, 'noise' what its sampler draws.",
    { value: name },
  );
}

export function runtimeFailed(problem: string): CompilerError {
  return new CompilerError(
    "RUNTIME_FAILED",
    5,
    `ONNX Runtime failed: ${problem}`,
    "If the model runs elsewhere with the same inputs, this is worth a report.",
  );
}

export function samplerOption(scheduler: string, option: string, problem: string): CompilerError {
  return new CompilerError("SAMPLER_OPTION", 2, `${scheduler} ${problem} ('${option}').`, "Leave the setting out, or change it as said.");
}

export function subgraphUnsupported(file: string | undefined, tensor: string): CompilerError {
  return new CompilerError(
    "SUBGRAPH_UNSUPPORTED",
    3,
    `The constant '${tensor}' of a subgraph or a sparse tensor has external data.`,
    "Save the model with such constants inside; onnx.save has a size threshold.",
    { file, value: tensor },
  );
}

export function tensorMalformed(file: string, tensor: string, problem: string): CompilerError {
  return new CompilerError(
    "TENSOR_MALFORMED",
    4,
    `The constant '${tensor}' is malformed: ${problem}.`,
    "Run onnx.checker.check_model on the file, and export the model again.",
    { file, value: tensor },
  );
}

export function tensorTooLarge(bytes: number, limit: number): CompilerError {
  return new CompilerError(
    "TENSOR_TOO_LARGE",
    3,
    `A constant of ${bytes} bytes would have to be looked into; the limit is ${limit}.`,
    "Shapes, scales and indices are small; a model that computes them from weights is not supported.",
  );
}

export function tensorWrongType(wanted: string, found: string): CompilerError {
  return new CompilerError(
    "TENSOR_WRONG_TYPE",
    3,
    `A constant of type ${found} stands where ${wanted} are needed.`,
    "Export the model with the element types of the ONNX operator's definition.",
  );
}

export function textInvalid(line: number, column: number, problem: string): CompilerError {
  return new CompilerError(
    "TEXT_INVALID",
    4,
    `Line ${line}, column ${column}: ${problem}.`,
    "The head of ir/text.ts says which part of the ONNX textual syntax is read.",
  );
}

export function traceMismatch(file: string | undefined, what: string, found: string | number, wanted: string | number): CompilerError {
  return new CompilerError(
    "TRACE_MISMATCH",
    2,
    `The trace is of another ${what}: ${found}, not ${wanted}.`,
    "A trace belongs to one model, sampler, number of steps and guidance, and is added to its like only: calibrate again with these.",
    { file },
  );
}

export function traceOverlap(file: string | undefined, sample: number): CompilerError {
  return new CompilerError(
    "TRACE_OVERLAP",
    2,
    `Sample ${sample} is in more than one of the traces.`,
    "Every sample counts once: give each trace once, and calibrate the shards i/n with the same n.",
    { file },
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
      ? "Name it when the model is exported (dynamic_axes or dynamic_shapes of torch.onnx.export), or fix the input's shape: python -m onnxruntime.tools.make_dynamic_shape_fixed."
      : `Give it one: --dim ${dim}=N, or "dims" in recipe.json.`,
    { value: input },
  );
}

export function undefinedName(name: string, where: Place): CompilerError {
  return new CompilerError(
    "UNDEFINED_NAME",
    3,
    `Nothing defines the value '${name}'.`,
    "Run onnx.checker.check_model on the file, and export the model again.",
    { ...where, value: name },
  );
}

export function unknownDevice(device: string): CompilerError {
  return new CompilerError("UNKNOWN_DEVICE", 2, `There is no device '${device}'.`, "Use cpu, cuda or cuda:<id>.");
}

export function unknownName(what: string, name: string, known: readonly string[]): CompilerError {
  const near = nearest(name, known);
  return new CompilerError(
    "UNKNOWN_NAME",
    2,
    `There is no ${what} '${name}'.`,
    `${near === undefined ? "" : `Did you mean '${near}'? `}Known: ${known.join(", ") || "none"}.`,
  );
}

export function unknownPipeline(className: string, known: readonly string[], folder: string): CompilerError {
  const near = nearest(className, known);
  return new CompilerError(
    "UNKNOWN_PIPELINE",
    3,
    `There is no pipeline or transformer '${className}'. Known: ${known.join(", ")}.`,
    `${near === undefined ? "" : `Did you mean '${near}'? `}For any other, write a recipe.json into the folder.`,
    { file: folder },
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

export function unsupportedPipeline(className: string, reason: string, folder: string): CompilerError {
  return new CompilerError(
    "UNSUPPORTED_PIPELINE",
    3,
    `No recipe can be derived for ${className}: ${reason}.`,
    "Write a recipe.json into the folder that says how the network is to be run.",
    { file: folder },
  );
}

export function unsupportedScheduler(className: string, setting: string, reason: string, hint: string): CompilerError {
  return new CompilerError("UNSUPPORTED_SCHEDULER", 3, `${className} with ${setting} is not supported: ${reason}.`, hint);
}

export function unsupportedType(code: number, where: Place): CompilerError {
  return new CompilerError(
    "UNSUPPORTED_TYPE",
    3,
    `'${where.value ?? ""}' has the element type ${code}, which is not supported.`,
    "Export the model in float32 or float16.",
    where,
  );
}

/** The known name with the fewest edits to `name`, if they are no more than a third of its letters (Levenshtein). */

export function nearest(name: string, known: readonly string[]): string | undefined {
  let best: { readonly name: string; readonly edits: number } | undefined;
  for (const candidate of known) {
    const edits = editDistance(name.toLowerCase(), candidate.toLowerCase());
    if (edits <= Math.ceil(name.length / 3) && edits < (best?.edits ?? Infinity)) best = { name: candidate, edits };
  }
  return best?.name;
}

function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (const [i, letter] of Array.from(a).entries()) {
    const next = [i + 1];
    for (const [j, other] of Array.from(b).entries()) {
      next.push(Math.min((row[j] ?? 0) + (letter === other ? 0 : 1), (row[j + 1] ?? 0) + 1, (next[j] ?? 0) + 1));
    }
    row = next;
  }
  return row[b.length] ?? 0;
}
