/** `run DIR`: one generation. */
import { join, resolve } from "node:path";
import { ArtifactSession, feedsOf, FILES, openArtifact } from "../../artifact/index.js";
import { badOption } from "../../../schedules/diagnostics.js";
import { missingOption, notFinite } from "../../words/index.js";
import { tensorFrom, tensorNumbers } from "../../../ir/tensor.js";
import { prepareFile, npyBytes, writeWhole } from "../../files/index.js";
import { sampleInputs } from "../../job/index.js";
import { runtimeOptions, sampleOptions } from "../options.js";
import { latentPicture, pictureShape } from "../../report/index.js";
import { assertKernels } from "../../runtime/index.js";
import type { Command } from "../command.js";

export default {
  name: "run",
  summary: "generate once with an artifact",
  argument: "DIR",
  options: ["check", "device", "extension", "force", "input", "noise", "output", "png", "seed", "threads"],
  async run(argument, options, host) {
    const { output, png, force = false } = options;
    if (output === undefined && png === undefined)
      throw badOption("-o, --output", "name a .npy file for the latent, or a picture with --png");
    if (output !== undefined && png !== undefined && resolve(output) === resolve(png))
      throw badOption("--png", "names the same file as --output");
    for (const file of [output, png]) if (file !== undefined) prepareFile(file, force);
    const runtime = runtimeOptions(options, host.signal);
    const { folder, job, manifest } = await openArtifact(argument, { ...runtime, extensions: options.extension, check: options.check });
    assertKernels(job.run, runtime.device);
    if (job.skipped && options.noise === undefined)
      throw missingOption("--noise", "this run starts from a latent that is given, not from noise");
    // The latent comes first, what the last network behind the run gives last.
    const shape = manifest.outputs.at(-1)?.shape ?? [];
    const range = job.source.recipe.display?.range ?? [-1, 1];
    if (png !== undefined) pictureShape(shape, range);
    const inputs = sampleInputs(job, 0, sampleOptions(options));
    const session = await ArtifactSession.open(join(folder, FILES.model), runtime);
    const started = performance.now();
    const outputs = await session.outputs(feedsOf(job, inputs)).finally(() => session.close());
    const [result] = [...outputs.values()].slice(-1);
    const values = result ? Float32Array.from(tensorNumbers(result)) : new Float32Array();
    const seconds = (performance.now() - started) / 1000;
    const stray = values.reduce((count, value) => count + (Number.isFinite(value) ? 0 : 1), 0);
    if (stray > 0) throw notFinite(stray, values.length);
    if (output !== undefined) await writeWhole(output, npyBytes(tensorFrom("float", shape, values)), force);
    if (png !== undefined) await writeWhole(png, latentPicture({ shape, values }, range), force);
    const files = [output, png].filter((file) => file !== undefined);
    return { json: { files, shape, seconds }, text: `${files.join(", ")}: [${shape.join(", ")}] in ${seconds.toFixed(2)} s` };
  },
} satisfies Command;
