// Checks what `npm start` made: a verified artifact whose report has its pictures.
import { readFileSync, statSync } from "node:fs";
import { join } from "node:path";

const folder = process.argv[2] ?? "out/glyphs";
const manifest = JSON.parse(readFileSync(join(folder, "manifest.json"), "utf8"));
const report = readFileSync(join(folder, "report.html"), "utf8");
const pictures = report.split("data:image/png;base64,").length - 1;
const problems = [
  manifest.macs.bound > 1.7 ? "" : `only ${manifest.macs.bound}× fewer MACs`,
  pictures >= 2 ? "" : `${pictures} pictures in the report`,
  statSync(join(folder, "model.onnx.data")).size > 1e7 ? "" : "the weights are missing",
].filter((problem) => problem !== "");
if (problems.length > 0) throw new Error(`npm start: ${problems.join("; ")}`);
console.log("npm start: the artifact and its report are there");
