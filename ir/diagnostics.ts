/**
 * Errors about graphs, model files and networks, and about unknown names: code, sentence, place, hint.
 * In alphabetical order of the codes.
 */

/** What the exit codes of the program mean. */
export const EXIT_CODES = {
  0: "done",
  1: "checked, and not good enough",
  2: "a mistake in the command line, a recipe, a plan or another input",
  3: "the model is not supported",
  4: "a file is missing, damaged or cannot be written",
  5: "the runtime cannot do it",
  70: "a bug in smoothcc; please report it with the command that you ran",
  130: "cancelled",
} as const;

/** Exit codes of problems that a person can do something about. */
export type ExitCode = Exclude<keyof typeof EXIT_CODES, 0 | 70>;

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
    `Name it as "${option}" in recipe.json, a file beside the model: ${recipeWith(option, candidates[0] ?? "")}.${role === "prediction" ? ` ${JOIN_FILES}` : ""}`,
  );
}

const JOIN_FILES =
  "If none is the prediction, as another file of the network goes on with them, join the files with onnx.compose.merge_models first.";

/** The shortest recipe that names a port: `option` is the path of its key, with a dot. */
function recipeWith(option: string, name: string): string {
  const [key = "", inner] = option.split(".");
  const value = inner === undefined ? `"${name}"` : `{ "${inner}": "${name}" }`;
  return `{ "model": "<name of the .onnx file>", "${key}": ${value} }`;
}

export function cancelled(): CompilerError {
  return new CompilerError("CANCELLED", 130, "Cancelled.", "Nothing half-written was left behind.");
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

export function fileMissing(file: string, problem: string, hint?: string): CompilerError {
  return new CompilerError("FILE_MISSING", 4, `The file cannot be read: ${problem}`, hint ?? "Check the path.", { file });
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

export function fileTooLarge(file: string, bytes: number, limit: number): CompilerError {
  return new CompilerError(
    "FILE_TOO_LARGE",
    4,
    `The file has ${bytes} bytes; what is read here has ${limit} at most.`,
    "Check that it is the file you meant.",
    { file },
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

/** `kind`: "a folder", "a pipe", … */
export function notAFile(path: string, kind: string): CompilerError {
  return new CompilerError(
    "NOT_A_FILE",
    4,
    `What is there is ${kind}, and a file is read here.`,
    "Give the path of a regular file; what comes out of a pipe is saved as one first.",
    { file: path },
  );
}

export function notOnnx(file: string, reason: string): CompilerError {
  return new CompilerError("NOT_ONNX", 4, `This is no ONNX model: ${reason}.`, "Give the .onnx file that the exporter wrote.", { file });
}

export function notRecognised(what: string, hint: string, node?: string): CompilerError {
  return new CompilerError("NOT_RECOGNISED", 3, what, hint, { node });
}

/** Most often what was exported is more than the network, or less. */
const EXPORT_STEP =
  "Export the denoising network alone, one step, with latent, time and conditions as inputs; if it is in two files, join them with onnx.compose.merge_models.";

/** Ids in, scores out: `elem` is the type of the input. */
export function discreteLatent(input: string, elem: string, output: string): CompilerError {
  return notRecognised(
    `The latent would be '${input}', which is of type ${elem}: '${output}' has scores of the values that its elements may have, as in discrete diffusion or a language model. Only continuous latents are compiled.`,
    "No option changes that. Where noise is added to embeddings of the tokens, export the network from these on, as a float input.",
  );
}

export function noLatent(): CompilerError {
  return notRecognised(
    "The graph has no latent: no input is a float tensor of rank 3 or more.",
    `${EXPORT_STEP} A latent of lower rank can be named in recipe.json: ${recipeWith("latent", "<input>")}.`,
  );
}

export function noPrediction(): CompilerError {
  return notRecognised("The graph has no prediction: it has no outputs.", EXPORT_STEP);
}

/** `numbers`: inputs with a number for each sample; `more`: those with more than one. */
export function noTime(numbers: readonly string[], more: readonly string[]): CompilerError {
  const quoted = (names: readonly string[]): string => names.map((name) => `'${name}'`).join(", ");
  const candidates = numbers.length > 0 ? ` It may be one of ${quoted(numbers)}, which may as well be labels.` : "";
  const others = more.length > 0 ? ` More than one number for each sample is in ${quoted(more)}.` : "";
  const naming = `Name the time in recipe.json, a file beside the model: ${recipeWith("timestep", numbers[0] ?? "")}.`;
  return notRecognised(
    `The graph has no time: no input with one number for each sample, or for each token, goes into a sine or cosine or has the name of a time.${candidates}${others}`,
    `${numbers.length > 0 ? naming : EXPORT_STEP}${more.length > 0 || numbers.length === 0 ? ` ${EMBED_INSIDE}` : ""}`,
  );
}

const EMBED_INSIDE =
  'A time that is embedded outside has to be embedded inside: export the network together with its time embedding, so that the input is the time itself, or join the files of the two with onnx.compose.merge_models. Or give the embedding of every step: "timestep": null and "inputs": { "<embedding>": { "perStep": true } } in recipe.json.';

/** `others`: inputs that go into a sine or cosine. */
export function timeIsAnother(name: string, others: readonly string[]): CompilerError {
  const [first = ""] = others;
  const they = others.map((other) => `'${other}'`).join(", ");
  return notRecognised(
    `'${name}' is no time: ${they} ${others.length === 1 ? "goes" : "go"} into a sine or cosine, as times do, and '${name}' does not.`,
    `Say ${recipeWith("timestep", first)} in recipe.json${others.length === 1 ? ", or leave it out" : ""}. If '${name}' is the time after all, export the network with that input called 'timestep'.`,
  );
}

export function timeIsNoNumber(name: string, elem: string, shape: readonly (number | string | null)[]): CompilerError {
  return notRecognised(
    `'${name}' is no time: it is ${elem} [${shape.map((dim) => dim ?? "?").join(", ")}]. The time is one number for each sample, or for each token.`,
    'Name the input that is the time in recipe.json, or leave "timestep" out: most often it is found.',
  );
}

export function timeIsVector(name: string): CompilerError {
  return notRecognised(
    `'${name}' is no time: its numbers are used as one vector for each sample, as an embedding that was computed outside. The time is one number for each sample, or for each token.`,
    EMBED_INSIDE,
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
    "The head of ir/print.ts says which part of the ONNX textual syntax is read.",
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

export function unknownName(what: string, name: string, known: readonly string[]): CompilerError {
  const near = nearest(name, known);
  return new CompilerError(
    "UNKNOWN_NAME",
    2,
    `There is no ${what} '${name}'.`,
    `${near === undefined ? "" : `Did you mean '${near}'? `}Known: ${known.join(", ") || "none"}.`,
  );
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
  const most = Math.ceil(name.length / 3);
  let best: { readonly name: string; readonly edits: number } | undefined;
  // Names that differ more than that in length alone need no counting, which takes the product of both lengths.
  for (const candidate of known.filter(({ length }) => Math.abs(length - name.length) <= most)) {
    const edits = editDistance(name.toLowerCase(), candidate.toLowerCase());
    if (edits <= most && edits < (best?.edits ?? Infinity)) best = { name: candidate, edits };
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
