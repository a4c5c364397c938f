/** Prints docs/supply-chain.md: what is installed to run smoothcc, from package-lock.json. `npm run docs` writes it. */
import { readFileSync } from "node:fs";
import { join } from "node:path";

const { packages } = JSON.parse(readFileSync(join(import.meta.dirname, "..", "package-lock.json"), "utf8"));
const name = (path) => path.replace(/^.*node_modules\//, "");
const needed = Object.entries(packages)
  .filter(([path, { dev }]) => path !== "" && dev !== true)
  .map(([path, { version, license, optional }]) => ({ name: name(path), version, license, optional }));
const everywhere = needed.filter(({ optional }) => optional !== true);
const direct = Object.keys(packages[""].dependencies);
const licences = [...new Set(needed.map(({ license }) => license))].sort();
const row = (...cells) => `| ${cells.join(" | ")} |`;

console.log(`# What smoothcc is made of

Printed by \`docs/make-supply-chain.js\` from package-lock.json; \`npm run docs\` writes it again. Versions are pinned there with their
digests, which npm checks.

## Installing

Packages come from the npm registry and nowhere else. \`.npmrc\` has \`ignore-scripts=true\`: no package runs code of its own when it is
installed. (The one that would is onnxruntime-node, whose script downloads the CUDA libraries from another host; the README says how to
have them.) So \`npm ci\` builds nothing either: \`npm start\`, \`npm test\` and \`npm run build\` do. \`npm ci --omit=dev\` installs what a
built \`dist/\` needs to run.

\`npm run tarball\` builds and packs. A project that installs the tarball has an \`.npmrc\` of its own, which no package can set, and npm would
run onnxruntime-node's script there. Keep it from that in one of these ways:

    npm install --ignore-scripts smoothcc-0.1.0.tgz
    ONNXRUNTIME_NODE_INSTALL=skip npm install smoothcc-0.1.0.tgz

Most of what is installed are ONNX Runtime's binaries, which its package has for all platforms: 290 MB, of which one platform
needs 25 to 86 MB. Where that matters, as in an image of Linux x64, delete the others:

    cd node_modules/onnxruntime-node/bin/napi-v6 && rm -r darwin win32 linux/arm64

## Running

Nothing is sent to anybody, and nothing is fetched: see the README, and \`test/telemetry.test.ts\`.

## Checking

    npm run sbom                # smoothcc.cdx.json: a bill of materials (CycloneDX 1.5) of what is installed, development left out
    npm audit --omit=dev        # known vulnerabilities, where the registry answers
    npm audit signatures        # the registry's signatures

## Packages

${everywhere.length} packages run on every platform, and one more of @resvg/resvg-js, for the machine's own. ${direct.length} are asked for by smoothcc itself (bold). ${licences.length - 1} of the
${licences.length} licences are permissive. MPL-2.0 asks that changes to the package's own files be published; it is used as it is.

${row("package", "version", "licence")}
${row("---", "---", "---")}
${everywhere.map((one) => row(direct.includes(one.name) ? `**${one.name}**` : one.name, one.version, one.license)).join("\n")}`);
