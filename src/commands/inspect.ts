/** `inspect MODEL`: what was found, what it costs, and what is missing. */
import { dumpBranches, inspect, type Inspection } from "../inspect.js";
import { bindModel, openLifted } from "../job.js";
import { missingOption } from "../../ir/diagnostics.js";
import { MODEL_OPTIONS, recipeOverrides, runtimeOptions } from "../options.js";
import { count, table } from "../text.js";
import type { Command } from "./index.js";

export default {
  name: "inspect",
  summary: "what a model is found to be: inputs, blocks, branches, MACs",
  argument: "MODEL",
  options: [...MODEL_OPTIONS, "dumpBranches", "inputs", "force"],
  async run(argument, options, host) {
    const runtime = runtimeOptions(options, host.signal);
    const { source, model } = await openLifted(argument, recipeOverrides(options));
    const bound = await bindModel(source, model, runtime);
    const found = inspect(bound);
    const { dumpBranches: folder, inputs, force = false } = options;
    if (folder !== undefined && inputs === undefined) throw missingOption("--inputs", "--dump-branches runs one step and needs its inputs");
    const dumped =
      folder !== undefined && inputs !== undefined
        ? await dumpBranches(model, inputs, folder, { ...runtime, force, context: bound.context })
        : undefined;
    return { json: dumped ? { ...found, dumped } : found, text: describe(found) };
  },
} satisfies Command;

function describe(found: Inspection): string {
  const { branches, macs } = found;
  const share = (part: number): string => `${((100 * part) / Math.max(1, macs.total)).toFixed(1)} %`;
  const shape = (dims: readonly (number | string | null)[] | null): string => `[${(dims ?? ["?"]).map((dim) => dim ?? "?").join(", ")}]`;
  return [
    `${found.recogniser} transformer, ${found.nodes} nodes, opset ${found.opset}`,
    "",
    table([
      ["port", "type", "shape", "taken for"],
      ...[...found.inputs, ...found.outputs].map((port) => [port.name, port.elem, shape(port.shape), port.role]),
    ]),
    "",
    table([
      ["branch", "block", "stream", "gated", "shape", "MACs", "share", "module"],
      ...branches.map((b) => [
        b.site,
        String(b.block),
        b.stream,
        b.gated ? "yes" : "no",
        shape(b.shape),
        count(b.macs),
        share(b.macs),
        b.module ?? "",
      ]),
    ]),
    "",
    `${branches.length} branches hold ${share(macs.cacheable)} of ${count(macs.total)} MACs a step (${count(macs.linear)} linear, ${count(macs.attention)} attention).`,
    ...found.warnings.map((warning) => `warning: ${warning}`),
  ].join("\n");
}
