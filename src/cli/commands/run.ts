/** `run DIR`: one generation. */
import { join, resolve } from "node:path";
import {
  ArtifactSession,
  artifactOf,
  feedsOf,
  FILES,
  jobAtBatch,
  type Manifest,
  openArtifact,
  runSegments,
  sizeAt,
} from "../../artifact/index.js";
import { badOption } from "../../../schedules/diagnostics.js";
import { missingOption, notFinite, type Progress } from "../../words/index.js";
import { entryAt } from "../../../ir/entries.js";
import { tensorFrom, tensorNumbers } from "../../../ir/tensor.js";
import { isFloatType } from "../../../ir/types.js";
import { prepareFile, npyBytes, writeWhole } from "../../files/index.js";
import { scaleInput } from "../../../schedules/index.js";
import { type InputSpecs, type Job, sampleInputs } from "../../job/index.js";
import { inputSpecs, oneVariant, type Options, runtimeOptions, sampleOptions } from "../options.js";
import { displayOf, media } from "../../report/index.js";
import { assertKernels, type RuntimeOptions, type Tensors } from "../../runtime/index.js";
import type { Command } from "../command.js";

/** The options that name a file for people. */
const SHOWN = ["png", "apng", "wav"] as const;

export default {
  name: "run",
  summary: "generate once with an artifact",
  argument: "DIR",
  options: [
    "batch",
    "check",
    "device",
    "extension",
    "force",
    "guidance",
    "input",
    "noise",
    "output",
    ...SHOWN,
    "seed",
    "threads",
    "variant",
  ],
  async run(argument, options, host) {
    const { output, force = false } = options;
    const shown = SHOWN.flatMap((medium) => (options[medium] === undefined ? [] : [{ medium, file: options[medium] }]));
    const files = [...(output === undefined ? [] : [output]), ...shown.map(({ file }) => file)];
    if (files.length === 0) throw badOption("-o, --output", "name a .npy file for the result, or a picture with --png");
    for (const { medium, file } of shown)
      if (files.filter((other) => resolve(other) === resolve(file)).length > 1)
        throw badOption(`--${medium}`, "names the same file as another option");
    for (const file of files) prepareFile(file, force);
    const runtime = runtimeOptions(options, host.signal);
    const artifact = await openArtifact(artifactOf(argument, oneVariant(options)), {
      ...runtime,
      extensions: options.extension,
      check: options.check,
    });
    const { folder, manifest } = artifact;
    const job = await jobAtBatch(artifact, options.batch ?? artifact.job.run.batch, runtime);
    assertKernels(job.run, runtime.device);
    if (job.skipped && options.noise === undefined)
      throw missingOption("--noise", "this run starts from a latent that is given, not from noise");
    // The latent comes first, what the last network behind the run gives last.
    const shape = (manifest.outputs.at(-1)?.shape ?? []).map((size) => sizeAt(size, job.run.batch));
    const display = displayOf(job.source.recipe);
    for (const { medium } of shown) media[medium].assertFits(shape, display);
    const inputs = sampleInputs(job, 0, {
      ...sampleOptions(options),
      inputs: new Map([...inputSpecs(options), ...scaleSpec(job, options)]),
    });
    const started = performance.now();
    const outputs = await outputsOf(folder, manifest, feedsOf(job, inputs), { ...runtime, progress: host.progress });
    const seconds = (performance.now() - started) / 1000;
    // Pixels are numbers, whatever the latent beside them is.
    const all = [...outputs.values()].map((data) => ({ data, values: Float32Array.from(tensorNumbers(data)) }));
    for (const { values } of all) {
      const stray = values.reduce((count, value) => count + (Number.isFinite(value) ? 0 : 1), 0);
      if (stray > 0) throw notFinite(stray, values.length);
    }
    const { data, values } = entryAt(all, all.length - 1);
    const numbers = isFloatType(data.elem) ? tensorFrom("float", shape, values) : data;
    if (output !== undefined) await writeWhole(output, npyBytes(numbers), force);
    for (const { medium, file } of shown) await writeWhole(file, media[medium].encode({ shape, values }, display), force);
    return { json: { files, shape, seconds }, text: `${files.join(", ")}: [${shape.join(", ")}] in ${seconds.toFixed(2)} s` };
  },
} satisfies Command;

/** The outputs of one run: of its parts in turn, which are told as they end, where it is in parts. */
async function outputsOf(
  folder: string,
  manifest: Manifest,
  feeds: Tensors,
  { progress, ...runtime }: RuntimeOptions & { readonly progress?: Progress | undefined },
): Promise<Tensors> {
  if (manifest.segments.length > 0)
    return runSegments(folder, manifest, feeds, { ...runtime, onSegment: (done, rows) => progress?.("run", done, rows) });
  const session = await ArtifactSession.open(join(folder, FILES.model), runtime);
  return session.outputs(feeds).finally(() => session.close());
}

/** `--guidance`: what the artifact's input for the scale gets. Throws BAD_OPTION where the scale is built in. */
function scaleSpec({ run }: Job, { guidance }: Options): InputSpecs {
  const input = scaleInput(run);
  if (guidance === undefined) return new Map();
  if (!input) throw badOption("--guidance", "is for artifacts that take the scale: build with --runtime guidance");
  return new Map([[input.name, guidance]]);
}
