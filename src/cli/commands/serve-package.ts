/** `serve-package DIR -o REPO`: an artifact as a model in a Triton model repository. */
import { basename, resolve } from "node:path";
import { badOption } from "../../../schedules/diagnostics.js";
import { membersOf, modelNameOf, packageModel } from "../../artifact/index.js";
import { formatQuantity } from "../../words/index.js";
import type { Command, CommandResult, Host } from "../command.js";
import { eachOf } from "../each-variant.js";
import type { Options } from "../options.js";

const NOT_BATCHED =
  "--batch has no effect: the server puts requests together only if all inputs of the artifact have an axis for the batch.";

export default {
  name: "serve-package",
  summary: "write an artifact as a model into a repository of NVIDIA's Triton server",
  argument: "DIR",
  options: ["batch", "check", "name", "device", "output", "force", "variant"],
  required: ["output"],
  async run(argument, options, host) {
    const whole = options.name ?? basename(resolve(argument));
    const named = (variant?: string): string | undefined => (variant === undefined ? options.name : modelNameOf(`${whole}-${variant}`));
    const members = membersOf(argument, options.variant);
    const names = members.map(({ name }) => named(name));
    const twice = names.find((name, i) => names.indexOf(name) !== i);
    if (twice !== undefined) throw badOption("--variant", `would make one model, ${twice}, of two: package them one by one`);
    return eachOf(members, (folder, variant) => packaged(folder, named(variant), options, host));
  },
} satisfies Command;

async function packaged(artifact: string, name: string | undefined, options: Options, host: Host): Promise<CommandResult> {
  const { batch, check, device, output = "", force = false } = options;
  const model = await packageModel(artifact, output, { name, check, device, maxBatch: batch, force });
  const { folder, files, inputs, maxBatch } = model;
  if (batch !== undefined && maxBatch === undefined) host.warn(NOT_BATCHED);
  const lines = files.map(
    ({ path, bytes: size, linked }) => `  ${path}  ${formatQuantity(size, "B")}${linked ? ", the artifact's own file" : ""}`,
  );
  const sent = inputs.flatMap((input) =>
    input.default === undefined ? [] : `Clients send ${input.name} with every request: that of the build is ${input.default}.`,
  );
  return { json: model, text: [`${folder}:`, ...lines, ...sent].join("\n") };
}
