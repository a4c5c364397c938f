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

export function externalDataShort(file: string, needed: number): CompilerError {
  return new CompilerError(
    "EXTERNAL_DATA_SHORT",
    4,
    `The weights file ends before byte ${needed}.`,
    "It is cut off or belongs to another export: copy or export the model again.",
    { file },
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
