/**
 * Prints docs/networks.md: what the compiler does with each export of test/fixtures once deployers' tools have been at it.
 *
 *   npm run build && PYTHON=python3 node docs/make-networks.js > docs/networks.md
 *
 * PYTHON has what test/fixtures/deployed/variants.py needs. An argument is a part of the names of the exports that are taken.
 * JOBS exports are worked on at a time, 2 if nothing is said.
 */
import { execFileSync, spawn } from "node:child_process";
import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { createInterface } from "node:readline";
import { Writable } from "node:stream";

// ONNX Runtime is asked directly, here and by the tools (src/runtime/telemetry.ts).
process.env.ORT_DISABLE_TELEMETRY = "1";

const ROOT = join(import.meta.dirname, "..");
const FIXTURES = join(ROOT, "test", "fixtures");
/** The longest that one file may take, in milliseconds. */
const PATIENCE = 120_000;
const STEPS = 4;
const PLAN = { "*": [1, 0, 1, 0] };

/** The columns of the large table; all other variants are in the small one only. */
const COLUMNS = [
  ...["plain", "unfolded", "slim", "sim", "ort-basic", "ort-extended", "transformers-bert", "transformers-mmdit"],
  ...[
    "fp16-all",
    "fp16-common",
    "fp16-transformers",
    "bf16-all",
    "dynamic-int8",
    "static-qdq",
    "static-qoperator",
    "int4",
    "int4-qdq",
    "bnb4",
  ],
];

const ABOUT = {
  plain: "as exported",
  unfolded: "weights transposed, and sizes put together, in the graph: no constant folding",
  slim: "onnxslim",
  sim: "onnxsim",
  "ort-basic": "saved by ONNX Runtime at its level basic",
  "ort-extended": "… extended",
  "ort-all": "… all (with layouts of this CPU)",
  "transformers-bert": "onnxruntime.transformers.optimizer, model type bert",
  "transformers-unet": "… unet",
  "transformers-mmdit": "… mmdit",
  "transformers-vae": "… vae",
  "transformers-bert-fp16": "… bert, then float16",
  "fp16-common-io32": "onnxconverter_common.float16, keep_io_types",
  "fp16-common": "… inputs and outputs as well",
  "fp16-transformers": "onnxruntime.transformers.float16, keep_io_types",
  "fp16-all": "all floats, as model.half() exports",
  "bf16-all": "all floats, as model.bfloat16() exports; compiled with --precision fp32",
  "dynamic-int8": "quantize_dynamic, int8",
  "dynamic-uint8": "… uint8",
  "dynamic-int8-channels": "… int8, per channel",
  "static-qdq": "quantize_static, QDQ, products only",
  "static-qdq-everything": "… QDQ, all operators, per channel",
  "static-qdq-int16": "… QDQ, uint16 activations",
  "static-qoperator": "… QOperator, products only",
  "static-qoperator-everything": "… QOperator, all operators",
  int4: "MatMulNBits, 4 bits, blocks of 32, symmetric",
  "int4-accuracy-4": "… blocks of 16, asymmetric, accuracy level 4",
  "int8-blocks": "… 8 bits, blocks of 64",
  "int4-qdq": "DequantizeLinear of int4 in blocks of 16",
  "int4-qdq-asymmetric": "… asymmetric",
  bnb4: "MatMulBnb4, NF4",
  "int4-slim": "int4-accuracy-4, then onnxslim",
  "int4-extended": "int4, then ONNX Runtime at its level extended",
  "extended-dynamic-int8": "ort-extended, then dynamic-int8",
  "static-qdq-extended": "static-qdq, then ONNX Runtime at its level extended",
  "fp16-int4": "int4, then fp16-common-io32",
};

const [flag, ...rest] = process.argv.slice(2);
if (flag === "--cases") await tellCases(rest);
else await printPage(flag ?? "");

/** Makes the variants of every export and tries them; prints the page. */
async function printPage(part) {
  const exports = readdirSync(FIXTURES)
    .filter((name) => existsSync(join(FIXTURES, name, "branches.json")))
    .flatMap((name) =>
      readdirSync(join(FIXTURES, name)).map((file) => `${name}/${basename(file, ".onnx")}${file.endsWith(".onnx") ? "" : "?"}`),
    )
    .filter((name) => !name.endsWith("?") && name.includes(part));
  const rows = new Map(exports.map((name) => [name, undefined]));
  const waiting = [...exports];
  const work = async () => {
    for (let name = waiting.shift(); name !== undefined; name = waiting.shift()) {
      rows.set(name, await tried(name));
      console.error(`${name}: ${[...rows.get(name).values()].filter(isRight).length} of ${rows.get(name).size}`);
    }
  };
  await Promise.all(Array.from({ length: Number(process.env.JOBS ?? 2) }, work));
  console.log(page(rows));
}

/** For each variant of an export what came of it. */
async function tried(name) {
  const [folder, file] = [join(FIXTURES, name.split("/")[0]), join(FIXTURES, `${name}.onnx`)];
  const temporary = mkdtempSync(join(tmpdir(), "smoothcc-networks-"));
  try {
    const script = join(FIXTURES, "deployed", "variants.py");
    execFileSync(process.env.PYTHON ?? "python3", [script, file, temporary, "--inputs", join(folder, "inputs")], {
      env: { ...process.env, OMP_NUM_THREADS: "1" },
      stdio: "ignore",
    });
    for (const part of ["inputs", "scheduler_config.json"]) cpSync(join(folder, part), join(temporary, part), { recursive: true });
    writeFileSync(join(temporary, "recipe.json"), JSON.stringify(recipeOf(folder)));
    writeFileSync(join(temporary, "plan.json"), JSON.stringify(PLAN));
    const made = Object.entries(JSON.parse(readFileSync(join(temporary, "variants.json"), "utf8")));
    const results = new Map(made.map(([variant, problem]) => [variant, { unmade: problem }]));
    await cases(
      temporary,
      made.flatMap(([variant, problem]) => (problem === null ? [variant] : [])),
      results,
    );
    return results;
  } finally {
    rmSync(temporary, { recursive: true, force: true });
  }
}

/** What the fixture's files say of a run: batch, channels, sizes, conditions. */
function recipeOf(folder) {
  // Python writes infinity without quotes.
  const json = (file) => JSON.parse(readFileSync(join(folder, file), "utf8").replaceAll(/-?Infinity|NaN/g, "null"));
  const { inputs, latent, timestep, channels } = json("config.json");
  const scheduler = json("scheduler_config.json");
  const isDynamic = scheduler.use_dynamic_shifting === true;
  const [rows] = inputs[latent].shape;
  const conditions = Object.keys(inputs).filter((name) => name !== latent && name !== timestep && name !== "timestep_r");
  return {
    model: "plain.onnx",
    scheduler: "scheduler_config.json",
    sampling: isDynamic ? { mu: 0.8 } : scheduler._class_name === "FlowMatchEulerDiscreteScheduler" ? { sigmas: "linear" } : {},
    ...("timestep_r" in inputs && { timestep: [timestep, "timestep_r"] }),
    steps: STEPS,
    batch: rows,
    prediction: { channels: channels.prediction, channelAxis: channels.channel_axis },
    guidance: { form: "none" },
    inputs: Object.fromEntries(conditions.map((name) => [name, { calibrate: [`inputs/${name}.npy`] }])),
  };
}

/** Tries the files in a process of its own; where that dies or takes too long, the file that it was at is to blame, and another goes on. */
async function cases(folder, variants, results) {
  if (variants.length === 0) return;
  const left = [...variants];
  const child = spawn(process.execPath, [import.meta.filename, "--cases", folder, ...variants], { stdio: ["ignore", "pipe", "ignore"] });
  let isLate = false;
  const late = () => {
    isLate = true;
    child.kill("SIGKILL");
  };
  let timer = setTimeout(late, PATIENCE);
  for await (const line of createInterface(child.stdout)) {
    clearTimeout(timer);
    timer = setTimeout(late, PATIENCE);
    results.set(left.shift(), JSON.parse(line));
  }
  clearTimeout(timer);
  if (left.length === 0) return;
  results.set(left.shift(), { refused: { code: isLate ? "too slow" : "crash", message: isLate ? "took too long" : "the process died" } });
  await cases(folder, left, results);
}

/** In the child: a line of JSON for each file. */
async function tellCases([folder, ...variants]) {
  const { main } = await import("../dist/src/cli/cli.js");
  const run = async (...argv) => {
    const texts = { stdout: "", stderr: "" };
    const into = (name) => new Writable({ write: (chunk, _, done) => done(void (texts[name] += String(chunk))) });
    const exit = await main([...argv, "--json", "--quiet"], {
      stdout: into("stdout"),
      stderr: into("stderr"),
      signal: new AbortController().signal,
    });
    if (texts.stderr.startsWith("internal")) return { refused: { code: "internal", message: texts.stderr.slice(0, 200) } };
    const read = (text) => JSON.parse(text.slice(text.indexOf("{")));
    if (exit !== 0 && texts.stdout === "") return { refused: read(texts.stderr).error };
    return { told: read(texts.stdout) };
  };
  const [recipe, plan, artifact] = ["recipe.json", "plan.json", "artifact"].map((name) => join(folder, name));
  const branchesOf = ({ told }) => told?.branches.map(({ kind, block, stream, gated }) => JSON.stringify({ kind, block, stream, gated }));
  await fixSizes(recipe, await run("inspect", join(folder, "plain.onnx"), "--recipe", recipe));
  const plain = branchesOf(await run("inspect", join(folder, "plain.onnx"), "--recipe", recipe)) ?? [];
  for (const variant of variants) {
    const file = join(folder, `${variant}.onnx`);
    const precision = variant === "bf16-all" ? ["--precision", "fp32"] : [];
    const inspected = await run("inspect", file, "--recipe", recipe);
    const found = branchesOf(inspected) ?? [];
    const result = { of: plain.length, found: found.length, same: found.join() === plain.join() };
    const compiled = await run("compile", file, "--recipe", recipe, "--plan", plan, "-o", artifact, "--force", ...precision);
    const verified = compiled.refused ? compiled : await run("verify", artifact, "--threads", "1");
    const check = verified.told?.checks.find(({ name }) => name.startsWith("artifact ="));
    const refused = inspected.refused ?? verified.refused;
    const runs = refused ? await runsSomewhere(file) : true;
    console.log(JSON.stringify({ ...result, runs, refused, error: check?.relL2, ok: verified.told?.ok }));
  }
}

/** Gives the symbolic dimensions of an export, but that of its batch, the sizes that the recorded inputs have. */
async function fixSizes(file, { told }) {
  const recipe = JSON.parse(readFileSync(file, "utf8"));
  const latent = told?.inputs.find(({ role }) => role === "latent");
  for (const { name, shape } of told?.inputs ?? []) {
    const sizes = recordedShape(join(file, "..", "inputs", `${name}.npy`));
    for (const [axis, dim] of shape.entries())
      if (typeof dim === "string" && dim !== latent?.shape[0]) recipe.dims = { ...recipe.dims, [dim]: sizes[axis] };
  }
  writeFileSync(file, JSON.stringify(recipe));
}

/** The shape in the header of an npy file. */
function recordedShape(file) {
  const [, shape = ""] = /'shape': \(([^)]*)\)/.exec(readFileSync(file, "latin1")) ?? [];
  return shape.split(",").filter(Boolean).map(Number);
}

/** Whether ONNX Runtime loads a file at all. */
async function runsSomewhere(file) {
  const { InferenceSession } = await import("onnxruntime-node");
  for (const graphOptimizationLevel of ["disabled", "all"]) {
    try {
      const session = await InferenceSession.create(file, { graphOptimizationLevel, logSeverityLevel: 4 });
      await session.release();
      return true;
    } catch {
      continue;
    }
  }
  return false;
}

function isRight({ same, ok }) {
  return same === true && ok === true;
}

/** Whether the file is one that runs nowhere, and was refused. */
function isRightlyRefused({ refused, runs }) {
  return refused !== undefined && runs === false && refused.code !== "internal";
}

function cellOf(result) {
  if (result === undefined || result.unmade) return "–";
  const branches = result.same ? `${result.found}` : `**${result.found}/${result.of}**`;
  if (result.refused)
    return `${result.found > 0 ? `${branches} ` : ""}${isRightlyRefused(result) ? result.refused.code : `**${result.refused.code}**`}`;
  const error = result.error === undefined ? "" : Number(result.error).toExponential(0);
  return `${branches} ${result.ok ? error : `**${error}**`}`;
}

function page(rows) {
  const all = [...rows.entries()].flatMap(([name, results]) =>
    [...results.entries()].map(([variant, result]) => ({ name, variant, result })),
  );
  const variants = [...new Set(all.map(({ variant }) => variant))];
  const count = (variant, test) => all.filter((one) => one.variant === variant && test(one.result)).length;
  const isMade = (result) => !result.unmade;
  const summary = variants.map((variant) => {
    const [made, right, refused] = [isMade, isRight, isRightlyRefused].map((test) => count(variant, test));
    return `| ${variant} | ${ABOUT[variant] ?? ""} | ${made} | ${right} | ${refused} | ${made - right - refused} |`;
  });
  const table = [...rows].map(([name, results]) => `| ${name} | ${COLUMNS.map((column) => cellOf(results.get(column))).join(" | ")} |`);
  const reasons = new Map();
  for (const { name, variant, result } of all) {
    if (!result.refused) continue;
    const text = `\`${result.refused.code}\` ${result.refused.message}`
      .replaceAll(/'[^']*'/g, "'…'")
      .replaceAll(/\s+/g, " ")
      .slice(0, 240);
    reasons.set(text, [...(reasons.get(text) ?? []), `${name} ${variant}`]);
  }
  const listed = [...reasons]
    .sort(([, a], [, b]) => b.length - a.length)
    .map(
      ([text, names]) =>
        `- ${text.replaceAll("<", "\\<").replaceAll("*", "\\*")} (${names.length}: ${names.slice(0, 3).join(", ")}${names.length > 3 ? ", …" : ""})`,
    );
  return `# Networks as people deploy them

Every export of \`test/fixtures\`, and what deployers' tools make of it. Each file is lifted, compiled with a plan that reads every branch at
every other of ${STEPS} steps, and its artifact is compared with a loop over the same file that reads the same values. Made by
[\`docs/make-networks.js\`](make-networks.js).

| variant | what it is | files | all right | refused, as they run nowhere | wrong |
|---|---|---|---|---|---|
${summary.join("\n")}

A cell has the number of branches, if they are those of the plain export (else **found/of**), and the relative L2 between artifact and loop; or the code
of a refusal. Bold is wrong; – is a file that the tool could not make.

| export | ${COLUMNS.join(" | ")} |
|---|${COLUMNS.map(() => "---|").join("")}
${table.join("\n")}

## What was refused

${listed.join("\n") || "Nothing."}`;
}
