/** Errors about files, recipes, options, devices and artifacts: code, sentence, place, hint. In alphabetical order of the codes. */
import { CompilerError, nearest } from "../../ir/diagnostics.js";
import type { Node } from "../../ir/graph.js";
import { isSelection } from "../../ir/sizes.js";

/** The shapes of the output and of the latent, and an axis whose first channels fit. */
export interface ChannelMisfit {
  readonly found: readonly number[];
  readonly wanted: readonly number[];
  readonly fits: { readonly axis: number; readonly channels: number };
}

export function artifactDamaged(folder: string, damages: readonly string[]): CompilerError {
  return new CompilerError(
    "ARTIFACT_DAMAGED",
    4,
    `The artifact is not as it was written: ${damages.join("; ")}.`,
    "Copy all of its folder again, or build it again. --no-check uses the files as they are.",
    { file: folder },
  );
}

export function badChannels(channels: readonly number[] | undefined, axis: number, { found, wanted, fits }: ChannelMisfit): CompilerError {
  return new CompilerError(
    "BAD_CHANNELS",
    2,
    `The prediction takes ${channels ? `channels ${channels.join(" to ")}` : "all channels"} of axis ${axis}, where the output has the shape [${found.join(", ")}] and the latent [${wanted.join(", ")}].`,
    `Set "prediction": { "channels": [0, ${fits.channels}], "channelAxis": ${fits.axis} } in recipe.json, or other channels of that axis, as many, if those are the prediction.`,
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
    shape.length < 2
      ? "Positions have two axes, points and coordinates: give this input a number, a list or a .npy file."
      : `Name ${shape.at(-1)} sizes whose product is ${shape.at(-2)}, as [1, height, width] where there are three, in recipe.json: "inputs": { "${input}": { "fix": { "grid": […] } } }; or give the positions as a .npy file.`,
    { value: input },
  );
}

export function badGuidance(key: string, problem: string, hint: string): CompilerError {
  return new CompilerError("BAD_GUIDANCE", 2, `The recipe's "guidance.${key}" ${problem}.`, hint);
}

export function badJson(file: string, problem: string): CompilerError {
  return new CompilerError(
    "BAD_JSON",
    4,
    `The file is not usable JSON: ${problem}`,
    "Check that it is the file you meant and that it is whole.",
    {
      file,
    },
  );
}

export function badNetworks(index: number, problem: string): CompilerError {
  return new CompilerError(
    "BAD_NETWORKS",
    2,
    `The recipe's "networks[${index}]" ${problem}.`,
    `Each of the further networks is called from a row of the sampler's table on ("from", an evaluation from 1), or from the first one whose time is below a number ("belowTime"), in the order of "networks".`,
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

/** `hint`: a sentence. */
export function badSize(size: readonly number[], problem: string, hint: string): CompilerError {
  return new CompilerError("BAD_SIZE", 2, `There is no result of ${size.join("x")} pixels: ${problem}.`, hint);
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

export function badVariant(variant: string, problem: string, known: readonly string[] = []): CompilerError {
  return new CompilerError(
    "BAD_VARIANT",
    2,
    `The variant '${variant}' cannot be built: ${problem}.`,
    `A variant is a size, key=value, or several with commas between, and may have a name in front: 512x768, steps=20, small:height=64,width=64,share=0.3.${known.length > 0 ? ` The recipe has ${known.join(", ")}.` : ""}`,
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

/** A companion's input, the shape that it has, and the value that it is given. */
export function companionMisfit(
  name: string,
  input: string,
  wanted: readonly (number | string | null)[],
  value: string,
  found: readonly (number | string | null)[],
): CompilerError {
  const shape = (sizes: readonly (number | string | null)[]): string => `[${sizes.map((size) => size ?? "?").join(", ")}]`;
  return new CompilerError(
    "COMPANION_MISFIT",
    2,
    `'${value}' ${shape(found)} does not fit '${input}' ${shape(wanted)} of '${name}'.`,
    'Wire another value to it in recipe.json ("before", "after"), put a graph between that reshapes it, or export with a size that fits.',
    { value: input },
  );
}

export function opsetsDiffer(name: string, found: number, wanted: number): CompilerError {
  return new CompilerError(
    "OPSETS_DIFFER",
    3,
    `'${name}' has version ${found} of the operator set, and what it is joined to has ${wanted}: some of its operators changed between them.`,
    `Export both with the same opset_version, or convert it first: in Python, onnx.save(onnx.version_converter.convert_version(onnx.load(file), ${wanted}), file).`,
  );
}

export function companionWiring(name: string, problem: string): CompilerError {
  return new CompilerError(
    "COMPANION_WIRING",
    2,
    `'${name}' ${problem}.`,
    'In recipe.json ("before", "after"), "inputs" says which value each of its inputs reads, "outputs" what its results are called: { "sample": "image" }.',
  );
}

/** `free`: the inputs whose numbers decide and are not known; `canFix`: whether a recipe may fix them. */
export function dataDependent(node: Node, free: readonly string[], canFix: boolean): CompilerError {
  const what = node.opType === "If" ? "which side of it runs" : isSelection(node) ? "how many elements it gives" : "the size of its result";
  const inputs = free.map((input) => `'${input}'`).join(", ");
  const fixes = free.map((input) => `"${input}": { "fix": … }`).join(", ");
  return new CompilerError(
    "DATA_DEPENDENT",
    3,
    free.length > 0
      ? `${nodeLabel(node)}: ${what} depends on the values of ${inputs}.`
      : `${nodeLabel(node)}: ${what} follows neither from the shapes of the inputs nor from values that are known.`,
    canFix && free.length > 0
      ? `Fix what decides in recipe.json, "inputs": { ${fixes} }, for all halves of the guidance alike; or export the network without it (no packing by a mask, no branching on values).`
      : "Export the network so that all sizes follow from the shapes of its inputs: tokens masked instead of packed, experts weighted instead of gathered.",
    { node: node.name },
  );
}

/** The operator and the name of a node, or that of its result where it has none. */
function nodeLabel({ opType, name, outputs }: Node): string {
  return `${opType} '${name === "" ? (outputs[0]?.name ?? "") : name}'`;
}

export function deviceMissing(device: string, problem: string): CompilerError {
  return new CompilerError(
    "DEVICE_MISSING",
    5,
    `The runtime cannot use '${device}': ${problem}`,
    "The README says how to add CUDA to onnxruntime-node; --device cpu always works.",
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

export function fileOutside(file: string, name: string): CompilerError {
  return new CompilerError(
    "FILE_OUTSIDE",
    2,
    `'${name}' is named by a recipe or a plan that lies elsewhere: it is not in the folder of what names it, or it is a link that leads out of it.`,
    "Copy it there; or, if you trust a recipe that names it, allow its folder: --allow-outside DIR.",
    { file },
  );
}

export function fractionalTime(sampler: string, timestep: number, input: string, elem: string): CompilerError {
  return new CompilerError(
    "FRACTIONAL_TIME",
    2,
    `${sampler} runs at times such as ${timestep}, and the network's time input is of type ${elem}.`,
    "Export the network with a float time, or choose a scheduler or a timestep_spacing whose times are whole: `smoothcc sampler scheduler_config.json --steps N` shows them.",
    { value: input },
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
    "Give an array of that shape, or of one row of its batch; a condition may also be one number, which fills it.",
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

/** `problem` and `hint` have no full stop. */
export function modelNotLoaded(file: string, problem: string, hint?: string): CompilerError {
  return new CompilerError(
    "MODEL_NOT_LOADED",
    5,
    `ONNX Runtime does not load the file as it was exported: ${problem}.`,
    `${hint ?? "Export the model so that onnxruntime.InferenceSession(file) takes it; then compile it"}.`,
    { file },
  );
}

export function networksDiffer(file: string, problem: string): CompilerError {
  return new CompilerError(
    "NETWORKS_DIFFER",
    3,
    `The networks of the run do not go together: ${problem}.`,
    "Export all of them in the same way: names and shapes of inputs, batch, opset, precision. Networks of different sizes cannot share a run, as its plan has one row of cells for a branch of all of them.",
    { file },
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

export function noPixels(value: string, problem: string): CompilerError {
  return new CompilerError(
    "NO_PIXELS",
    2,
    `No pixels can be made of '${value}', which comes out last: ${problem}.`,
    'Pixels are those of pictures, [batch, channels, height, width], and of videos. Where it is one, say so in the recipe: "display": { "kind": "image", "range": [-1, 1] }; else leave out --pixels ("pixels").',
    { value },
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

export function notSound(shape: readonly number[], problem: string): CompilerError {
  return new CompilerError(
    "NOT_SOUND",
    2,
    `A result of the shape [${shape.join(", ")}] cannot be written as sound: ${problem}.`,
    'Sound is [batch, channels, samples] of one or two channels: join a decoder or a vocoder behind the run ("after" in recipe.json), or leave out --wav.',
  );
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

export function noKernels(type: string, device: string, operators: readonly string[] = []): CompilerError {
  const which = operators.length === 0 ? "" : `: it has no kernels there for ${operators.join(", ")}`;
  return new CompilerError(
    "NO_KERNELS",
    5,
    `The runtime cannot compute in ${type} on '${device}'${which}.`,
    type === "bfloat16"
      ? "Run it with --device cuda, or build and compile with --precision fp32 (or fp16), which makes floats of what is bfloat16 in the export."
      : `Give --device cuda if that has them, or export the network without ${type}.`,
  );
}

/** `corrects`: steps of the sampler correct the latent that they start from. */
export function noLevels(sampler: string, corrects: boolean): CompilerError {
  return new CompilerError(
    "NO_LEVELS",
    3,
    corrects
      ? `What a mask keeps cannot take the place of the latents of ${sampler}: its steps also correct the latent that they start from.`
      : `What a mask keeps cannot be noised: the table of ${sampler} does not say the noise level of every row.`,
    corrects
      ? 'Choose a scheduler without a corrector for "inpaint": Euler, DDIM, DPM-Solver or flow matching.'
      : 'Give every row of the table its "level": { "signal": …, "noise": … }, by which the latent is signal · sample + noise · unit normal.',
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

export function planSavesNothing(): CompilerError {
  return new CompilerError(
    "PLAN_SAVES_NOTHING",
    2,
    "The plan computes every branch at every step.",
    "Let the policy cache more (a higher threshold, a lower share), or write 0 for some 1 of the plan; --no-cache compiles the plain model on purpose.",
  );
}

export function predictionShape(found: readonly number[], wanted: readonly number[]): CompilerError {
  return new CompilerError(
    "PREDICTION_SHAPE",
    3,
    `The prediction has the shape [${found.join(", ")}], the latent [${wanted.join(", ")}].`,
    'The output may have more channels than the latent, and else has its shape: name another output ("prediction": { "output": … } in recipe.json), or export the network so that it predicts what the sampler works on; what the sampler does not change (a mask, an image) is an input of its own. If the network is in two files, join them with onnx.compose.merge_models.',
  );
}

/** `problem` and `hint` have no full stop. Without a hint there is nothing that a person can do but report it. */
export function runtimeFailed(problem: string, hint?: string, cause?: unknown): CompilerError {
  return new CompilerError(
    "RUNTIME_FAILED",
    5,
    `ONNX Runtime failed: ${problem}.`,
    `${hint ?? "Please report it with the command that you ran, unless ONNX Runtime fails alike on the exported file by itself"}.`,
    {},
    { cause },
  );
}

export function severalArtifacts(folder: string, variants: readonly string[]): CompilerError {
  return new CompilerError(
    "SEVERAL_ARTIFACTS",
    2,
    `The folder has several artifacts: ${variants.join(", ")}.`,
    "Name one of them: --variant NAME, or its own folder.",
    { file: folder },
  );
}

export function sourceChanged(file: string): CompilerError {
  return new CompilerError(
    "SOURCE_CHANGED",
    4,
    "The file was changed while it was read, so what was made of it may be of two halves.",
    "Run the command again when the file is whole.",
    { file },
  );
}

export function telemetryOn(cause: unknown): CompilerError {
  return new CompilerError(
    "TELEMETRY_ON",
    5,
    "ONNX Runtime's telemetry could not be switched off from a worker thread: this process does not let it ask the main thread.",
    "Import smoothcc in the main thread as well, before it starts workers.",
    {},
    { cause },
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

export function typeUnknown(node: Node): CompilerError {
  return new CompilerError(
    "TYPE_UNKNOWN",
    3,
    `Nothing says of which type and size the result of ${nodeLabel(node)} is: there is no rule for it here, and ONNX Runtime infers none.`,
    "Export the model without this operator, or with fixed shapes written into it (onnx.shape_inference).",
    { node: node.name },
  );
}

export function unknownDevice(device: string): CompilerError {
  return new CompilerError("UNKNOWN_DEVICE", 2, `There is no device '${device}'.`, "Use cpu, cuda or cuda:<id>.");
}

export function unknownPipeline(className: string, known: readonly string[], folder: string): CompilerError {
  const near = nearest(className, known);
  return new CompilerError(
    "UNKNOWN_PIPELINE",
    3,
    `There is no pipeline or transformer '${className}'. Known: ${known.join(", ")}.`,
    `${near === undefined ? "" : `Did you mean '${near}'? `}For any other, write recipe.json into the folder: { "model": "transformer/model.onnx", "scheduler": "scheduler/scheduler_config.json", "steps": 50, "guidance": { "form": "none" } } with what the README lists in its table of keys.`,
    { file: folder },
  );
}

/** `instead` has no full stop; `recipe` is what it leads to. */
export function unsupportedPipeline(className: string, reason: string, instead: string, recipe: string, folder: string): CompilerError {
  return new CompilerError("UNSUPPORTED_PIPELINE", 3, `No recipe can be derived for ${className}: ${reason}.`, `${instead}: ${recipe}.`, {
    file: folder,
  });
}
