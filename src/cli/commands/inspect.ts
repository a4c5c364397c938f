/** `inspect MODEL`: what was found, what it costs, and what is missing. */
import { type CompanionReport, dumpBranches, inspect, type Inspection, type NetworkReport, networksReported } from "../../inspect.js";
import { bindModel, bordersOf, type BoundModel, lifted, type Network, type OpenCompanion, openNetwork } from "../../job/index.js";
import { CompilerError } from "../../../ir/diagnostics.js";
import type { Companion } from "../../../schedules/index.js";
import { unknownWarning } from "../../../ir/unknown.js";
import { counted, formatQuantity, missingOption, oneLine, table } from "../../words/index.js";
import { MODEL_OPTIONS, variantOverrides, runtimeOptions } from "../options.js";
import { asExported } from "../as-exported.js";
import type { Command } from "../command.js";

export default {
  name: "inspect",
  summary: "what a model is found to be: inputs, blocks, branches, MACs",
  argument: "MODEL",
  options: [...MODEL_OPTIONS, "variant", "dumpBranches", "inputs", "force"],
  async run(argument, options, host) {
    const runtime = runtimeOptions(options, host.signal);
    const network = await openNetwork(argument, variantOverrides(argument, options));
    const { dumpBranches: folder, inputs, force = false } = options;
    if (folder !== undefined && inputs === undefined) throw missingOption("--inputs", "--dump-branches runs one step and needs its inputs");
    const explained = (error: unknown): Promise<unknown> => asExported(error, argument, options, runtime);
    const bound = await boundOrNot(() => bindModel(network, runtime), explained);
    if (folder !== undefined && bound instanceof CompilerError) throw bound;
    const one = bound instanceof CompilerError ? asTheFileHasIt(network, bound) : inspect(bound.model, bound.facts.companions);
    const networks = networksReported(network.source.recipe, bound instanceof CompilerError ? undefined : bordersOf(bound));
    const found = networks ? { ...one, networks } : one;
    const dumped =
      folder !== undefined && inputs !== undefined && !(bound instanceof CompilerError)
        ? await dumpBranches(bound.model, inputs, folder, { ...runtime, force })
        : undefined;
    return { json: dumped ? { ...found, dumped } : found, text: describe(found) };
  },
} satisfies Command;

/** Reasons why a model cannot be bound with which `inspect` still shows what the file has. */
const SHOWN: ReadonlySet<string> = new Set(["UNBOUND_DIM", "DATA_DEPENDENT", "TYPE_UNKNOWN", "RUNTIME_FAILED", "MODEL_NOT_LOADED"]);

/**
 * The bound model, or the reason why it cannot be bound: `inspect` also shows models with unknown sizes, or that this machine cannot run.
 */
async function boundOrNot(
  bind: () => Promise<BoundModel>,
  explained: (error: unknown) => Promise<unknown>,
): Promise<BoundModel | CompilerError> {
  try {
    return await bind();
  } catch (error) {
    const reason = await explained(error);
    if (reason instanceof CompilerError && SHOWN.has(reason.code)) return reason;
    throw reason;
  }
}

/** What is found in the model as the file has it. Throws the problem where that cannot be lifted either. */
function asTheFileHasIt(network: Network, problem: CompilerError): Inspection {
  const warning = `Shapes and MACs are as far as the file has them: ${problem.message} ${problem.hint}`;
  try {
    const model = lifted(network, network.step);
    const asRead = (all: readonly OpenCompanion[]): readonly Companion[] => all.map(({ read, ...wiring }) => ({ ...wiring, model: read }));
    const { before, after } = network.companions;
    const found = inspect(model, { before: asRead(before), after: asRead(after) });
    return { ...found, warnings: [...found.warnings, unknownWarning(model) ?? [], warning].flat() };
  } catch (error) {
    throw error instanceof CompilerError ? problem : error;
  }
}

function describe(found: Inspection): string {
  const { networks = [], branches, constant, macs } = found;
  const share = (part: number): string => `${((100 * part) / Math.max(1, macs.total)).toFixed(1)} %`;
  const trunk = macs.total - macs.cacheable - macs.hoisted;
  return [
    `${found.recogniser} transformer, ${found.nodes} nodes, opset ${found.opset}`,
    ...networks.map(calledFrom),
    "",
    table([
      ["port", "type", "shape", "taken for"],
      ...[...found.inputs, ...found.outputs].map((port) => [port.name, port.elem, shape(port.shape), port.role]),
    ]),
    ...found.inputs.flatMap(({ name, perStep }) =>
      perStep === undefined ? [] : [`'${name}' may be given for each step ("perStep" in recipe.json): ${perStep}.`],
    ),
    "",
    ...joined(found),
    table([
      ["branch", "block", "stream", "gated", "shape", "compute", "share", "module"],
      ...branches.map((b) => [
        b.site,
        String(b.block),
        b.stream,
        b.gated ? "yes" : "no",
        shape(b.shape),
        formatQuantity(b.macs, "MAC"),
        share(b.macs),
        b.module ?? "",
      ]),
    ]),
    "",
    ...(macs.total === 0
      ? [`${blocks(branches)}; MACs are not known.`]
      : [
          `${blocks(branches)} with ${share(macs.cacheable)} of ${formatQuantity(macs.total, "MAC")} a step (${formatQuantity(macs.linear, "MAC")} linear, ${formatQuantity(macs.attention, "MAC")} attention) in branches.`,
          `Of the rest, ${share(macs.hoisted)} depends on time and conditions alone and leaves the steps; ${share(trunk)} (embedding, output, whatever is in no branch) is computed at every step.`,
        ]),
    ...constant.map(({ stream, site }) => `${stream} ${site}: does not depend on the latent, and leaves the steps.`),
    ...found.warnings.map((warning) => `warning: ${oneLine(warning)}`),
  ].join("\n");
}

/** `low/model.onnx is called from evaluation 20 on, below the time 875`. */
function calledFrom({ model, from, belowTime }: NetworkReport): string {
  const places = [from === null ? "" : ` from evaluation ${from} on`, belowTime === undefined ? "" : ` below the time ${belowTime}`];
  return `${model} is called${places.filter((place) => place !== "").join(",")}`;
}

function shape(dims: readonly (number | string | null)[] | null): string {
  return `[${(dims ?? ["?"]).map((dim) => dim ?? "?").join(", ")}]`;
}

/** The networks in front of a run and behind it. */
function joined({ before, after }: Inspection): readonly string[] {
  const ports = (all: CompanionReport["inputs"]): string => all.map((port) => `${port.value} ${shape(port.shape)}`).join(", ");
  const rows = (place: string, all: readonly CompanionReport[]): readonly (readonly string[])[] =>
    all.map(({ name, inputs, outputs }) => [name, place, ports(inputs), ports(outputs)]);
  const all = [...rows("in front", before), ...rows("behind", after)];
  return all.length === 0 ? [] : [table([["network", "of the run", "reads", "gives"], ...all]), ""];
}

/** `19 blocks (image, text), 38 blocks (text+image)`. */
function blocks(branches: Inspection["branches"]): string {
  const streams = new Map<string, Set<number>>();
  for (const { stream, block } of branches) streams.set(stream, (streams.get(stream) ?? new Set()).add(block));
  return [...new Set([...streams.values()].map(({ size }) => size))]
    .map((n) => {
      const same = [...streams].filter(([, { size }]) => size === n).map(([stream]) => stream);
      return `${counted(n, "block")} (${same.join(", ")})`;
    })
    .join(", ");
}
