/** `run DIR`: one generation. */
import { join, resolve } from "node:path";
import { ArtifactSession, feedsOf, FILES, openArtifact } from "../../artifact/index.js";
import { badOption } from "../../../schedules/diagnostics.js";
import { missingOption, notFinite } from "../../words/index.js";
import { tensorFrom } from "../../../ir/tensor.js";
import { prepareFile, npyBytes, writeWhole } from "../../files/index.js";
import { latentShape, scaleInput } from "../../../schedules/index.js";
import { type InputSpecs, type Job, sampleInputs } from "../../job/index.js";
import { inputSpecs, type Options, runtimeOptions, sampleOptions } from "../options.js";
import { latentPicture, pictureShape } from "../../report/index.js";
import { assertKernels } from "../../runtime/index.js";
import type { Command } from "../command.js";

export default {
  name: "run",
  summary: "generate once with an artifact",
  argument: "DIR",
  options: ["check", "device", "extension", "force", "guidance", "input", "noise", "output", "png", "seed", "threads"],
  async run(argument, options, host) {
    const { output, png, force = false } = options;
    if (output === undefined && png === undefined)
      throw badOption("-o, --output", "name a .npy file for the latent, or a picture with --png");
    if (output !== undefined && png !== undefined && resolve(output) === resolve(png))
      throw badOption("--png", "names the same file as --output");
    for (const file of [output, png]) if (file !== undefined) prepareFile(file, force);
    const runtime = runtimeOptions(options, host.signal);
    const { folder, job } = await openArtifact(argument, { ...runtime, extensions: options.extension, check: options.check });
    assertKernels(job.run, runtime.device);
    if (job.skipped && options.noise === undefined)
      throw missingOption("--noise", "this run starts from a latent that is given, not from noise");
    const shape = latentShape(job.run);
    const range = job.source.recipe.display?.range ?? [-1, 1];
    if (png !== undefined) pictureShape(shape, range);
    const inputs = sampleInputs(job, 0, {
      ...sampleOptions(options),
      inputs: new Map([...inputSpecs(options), ...scaleSpec(job, options)]),
    });
    const session = await ArtifactSession.open(join(folder, FILES.model), runtime);
    const started = performance.now();
    const values = await session.run(feedsOf(job, inputs)).finally(() => session.close());
    const seconds = (performance.now() - started) / 1000;
    const stray = values.reduce((count, value) => count + (Number.isFinite(value) ? 0 : 1), 0);
    if (stray > 0) throw notFinite(stray, values.length);
    if (output !== undefined) await writeWhole(output, npyBytes(tensorFrom("float", shape, values)), force);
    if (png !== undefined) await writeWhole(png, latentPicture({ shape, values }, range), force);
    const files = [output, png].filter((file) => file !== undefined);
    return { json: { files, shape, seconds }, text: `${files.join(", ")}: [${shape.join(", ")}] in ${seconds.toFixed(2)} s` };
  },
} satisfies Command;

/** `--guidance`: what the artifact's input for the scale gets. Throws BAD_OPTION where the scale is built in. */
function scaleSpec({ run }: Job, { guidance }: Options): InputSpecs {
  const input = scaleInput(run);
  if (guidance === undefined) return new Map();
  if (!input) throw badOption("--guidance", "is for artifacts that take the scale: build with --runtime guidance");
  return new Map([[input.name, guidance]]);
}
