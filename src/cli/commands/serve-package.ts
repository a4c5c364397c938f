/** `serve-package DIR -o REPO`: an artifact as a model in a Triton model repository. */
import { packageModel } from "../../artifact/index.js";
import { formatQuantity } from "../../words/index.js";
import type { Command } from "../command.js";

const NOT_BATCHED =
  "--batch has no effect: the server puts requests together only if all inputs of the artifact have an axis for the batch.";

export default {
  name: "serve-package",
  summary: "write an artifact as a model into a repository of NVIDIA's Triton server",
  argument: "DIR",
  options: ["batch", "check", "name", "device", "output", "force"],
  required: ["output"],
  async run(argument, { batch, name, check, device, output = "", force = false }, host) {
    const packaged = await packageModel(argument, output, { name, check, device, maxBatch: batch, force });
    const { folder, files, inputs, maxBatch } = packaged;
    if (batch !== undefined && maxBatch === undefined) host.warn(NOT_BATCHED);
    const lines = files.map(
      ({ path, bytes: size, linked }) => `  ${path}  ${formatQuantity(size, "B")}${linked ? ", the artifact's own file" : ""}`,
    );
    const sent = inputs.flatMap((input) =>
      input.default === undefined ? [] : `Clients send ${input.name} with every request: that of the build is ${input.default}.`,
    );
    return { json: packaged, text: [`${folder}:`, ...lines, ...sent].join("\n") };
  },
} satisfies Command;
