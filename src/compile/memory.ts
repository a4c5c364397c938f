/** Predicts the memory of a run, from the nodes at which each value is computed and last read. */
import { dependence, executionOrder, operands, sourcesWithin } from "../../ir/analysis.js";
import { type Graph, isOp, type Model, type Value } from "../../ir/graph.js";
import { isElementwise } from "../../ir/ops.js";
import { staticShape } from "../../ir/types.js";
import { bytesOf, weightBytes } from "../../ir/bytes.js";

/** In bytes. Scratch memory of kernels and the overhead of the runtime's allocator are not included. */
export interface Memory {
  /** The most bytes that computed values occupy at once, without the inputs of the run. */
  readonly activations: number;
  /** The part due to caching: values, or sums of them, that are kept for later steps. */
  readonly cache: number;
  readonly weights: number;
}

/**
 * The memory of a run with known shapes, as ONNX Runtime runs it with its optimiser off; `uncached` is the same run without caching. The
 * part due to caching is the difference of the two over values that depend on the latent: hoisted values are left out, as a run that
 * computes less also needs fewer of them. A Loop takes the memory of its results, which it carries, plus that of its body.
 */
export function memoryOf(run: Model, uncached: Model, latent: string): Memory {
  const following = ({ graph }: Model): number => {
    const inputs = graph.inputs.filter(({ name }) => name === latent);
    return peakOf(spansOf(graph, new Map(inputs.map((input) => [input, 1]))));
  };
  return {
    activations: peakOf(spansOf(run.graph)),
    cache: Math.max(0, following(run) - following(uncached)),
    weights: weightBytes(run.graph),
  };
}

/** Bytes that are in use from one node to another, both included. */
interface Span {
  readonly bytes: number;
  readonly from: number;
  to: number;
}

/** The most bytes that are in use at once. */
function peakOf(spans: readonly Span[]): number {
  const changes = new Map<number, number>();
  const change = (at: number, by: number): void => void changes.set(at, (changes.get(at) ?? 0) + by);
  for (const { bytes, from, to } of spans) {
    change(from, bytes);
    change(to + 1, -bytes);
  }
  let used = 0;
  let peak = 0;
  for (const [, by] of [...changes].sort(([a], [b]) => a - b)) peak = Math.max(peak, (used += by));
  return peak;
}

interface Buffer extends Span {
  readonly shape: string;
  /** The number of remaining reads of the values in it. */
  reads: number;
}

/**
 * The buffers of a graph's results, and for a node with subgraphs the peak of the largest one. They follow the rules of
 * `AllocationPlanner` (onnxruntime/core/framework/allocation_planner.cc): a view shares the buffer of its operand; an elementwise kernel
 * overwrites an operand that has no further readers; any other result takes a free buffer of the same shape, or else a new one. A buffer
 * is freed after the last read of a value in it, or at the end. With `sources`, only results that depend on these values are counted.
 * The outputs of a side of an If lie in the buffers of the If's results.
 */
function spansOf(graph: Graph, sources?: ReadonlyMap<Value, number>, isSide = false): readonly Span[] {
  const order = executionOrder(graph);
  const follows = dependence(graph, sources ?? new Map());
  const given = new Set(graph.outputs.map(({ value }) => value));
  const reads = new Map<Value, number>();
  const count = (value: Value): void => void reads.set(value, (reads.get(value) ?? 0) + 1);
  for (const node of order) for (const value of operands(node)) count(value);
  for (const { value } of graph.outputs) count(value);
  const all: Buffer[] = [];
  const inner: Span[] = [];
  const free = new Map<string, Buffer[]>();
  const bufferOf = new Map<Value, Buffer>();
  const freeOf = (shape: string): Buffer[] => {
    const known = free.get(shape) ?? [];
    free.set(shape, known);
    return known;
  };
  for (const [at, node] of order.entries()) {
    const read = operands(node).flatMap((value) => bufferOf.get(value) ?? []);
    for (const value of node.outputs) {
      if (isSide && given.has(value)) continue;
      if (sources && follows(value) === 0) continue;
      const shape = `${value.type?.elem ?? ""} ${staticShape(value.type)?.join() ?? ""}`;
      const isView = isOp(node, "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity");
      // A view of an input or of a weight takes no memory of its own.
      if (isView && read.length === 0) continue;
      const over = isView ? read[0] : isElementwise(node) ? read.find((buffer) => buffer.reads === 1 && buffer.shape === shape) : undefined;
      const known = over ?? freeOf(shape).pop();
      const buffer = known ?? { shape, bytes: bytesOf(value), from: at, to: at, reads: 0 };
      if (!known) all.push(buffer);
      buffer.reads += reads.get(value) ?? 0;
      bufferOf.set(value, buffer);
    }
    const most = node.subgraphs.map((within) => peakOf(spansOf(within, sources && sourcesWithin(node, within, follows), isOp(node, "If"))));
    if (most.length > 0) inner.push({ bytes: Math.max(...most), from: at, to: at });
    for (const buffer of read) buffer.reads -= 1;
    const touched = new Set(read);
    for (const value of node.outputs) {
      const buffer = bufferOf.get(value);
      if (buffer) touched.add(buffer);
    }
    for (const buffer of touched) {
      buffer.to = at;
      if (buffer.reads === 0) freeOf(buffer.shape).push(buffer);
    }
  }
  for (const value of given) {
    const buffer = bufferOf.get(value);
    if (buffer) buffer.to = order.length;
  }
  return [...all, ...inner];
}
