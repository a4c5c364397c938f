/** The output of `compile` and `build` about a compilation. */
import type { Compiled, Limited, OffDevice } from "../compile/index.js";
import { formatQuantity } from "../words/index.js";

/** The figures of a compilation as JSON. */
export function compileFigures(
  { form, nodes, macs, passes, memory, cuda, joined }: Compiled,
  computed: Limited["computed"],
): Record<string, unknown> {
  return { form, nodes, macs, passes, cache: { peakBytes: memory.cache, computed }, memory, cuda, ...joined };
}

/** The networks that are joined to the run, as text; none if there are none. */
export function joinedText({ joined: { before, after } }: Compiled): readonly string[] {
  const parts = [before.length > 0 ? `in front: ${before.join(", ")}` : [], after.length > 0 ? `behind: ${after.join(", ")}` : []].flat();
  return parts.length > 0 ? [parts.join("; ")] : [];
}

/** The memory of a run, as text. */
export function memoryText({ memory: { activations, cache, weights } }: Compiled): string {
  return `a run takes ${formatQuantity(activations, "B")} at most beside ${formatQuantity(weights, "B")} of weights; ${formatQuantity(cache, "B")} of it for caching`;
}

/** The effect of `--cache-memory`, as text. */
export function limitText(computed: Limited["computed"]): readonly string[] {
  return computed.length === 0 ? [] : [`computed at every step, as their caches were over the limit: ${computed.join(", ")}`];
}

/** The CUDA coverage of the model, as text. */
export function cudaText({ cuda: { kernels, missing, copies } }: Compiled): string {
  const lines = [...offDevice("no CUDA kernel", missing), ...offDevice("waits for the host under CUDA", copies)];
  return lines.length > 0 ? lines.join("\n") : `CUDA has a kernel for each of the ${kernels} nodes, and none waits for the host`;
}

/** `no CUDA kernel: 12 × Mish (opset 22: float, float), as /blocks.0/act`; a line for each operator and its types. */
function offDevice(problem: string, nodes: readonly OffDevice[]): readonly string[] {
  const alike = new Map<string, OffDevice[]>();
  for (const node of nodes) {
    const what = `${node.op} (opset ${node.opset}: ${node.types.join(", ")})`;
    alike.set(what, [...(alike.get(what) ?? []), node]);
  }
  return Array.from(alike, ([what, same]) => `${problem}: ${same.length} × ${what}, as ${same[0]?.node ?? ""}`);
}
