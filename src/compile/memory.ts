/** How much memory a run takes: from when each value is made and last read, known before anything runs. */
import { dependence, executionOrder, operands, sourcesWithin, subgraphs } from "../../ir/analysis.js";
import { type Graph, isOp, type Model, type Value } from "../../ir/graph.js";
import { isElementwise } from "../../ir/ops.js";
import { staticShape } from "../../ir/types.js";
import { bytesOf, weightBytes } from "../../ir/bytes.js";

/** Bytes. What a kernel needs while it runs, and what the runtime's allocator adds to it, is not in them. */
export interface Memory {
  /** The most that computed values occupy at once; what a run is given is not. */
  readonly activations: number;
  /** How much of that is due to caching: values wait for later steps, or sums of them do. */
  readonly cache: number;
  readonly weights: number;
}

/**
 * Of a run whose shapes are known, as ONNX Runtime runs it when its optimiser is off; `uncached` is the same run without caching.
 * What caching adds is looked for where the latent is: of what follows from time and conditions alone, and is there before the first
 * step, a run that computes less takes less. A Loop takes what it gives, which it carries, and beside it what its body takes.
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

/** Bytes that are in use from one node, or step, to another, both included. */
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
  /** Reads to come of the values that lie in it. */
  reads: number;
}

/**
 * The buffers that results are put in, and at a node with graphs the most that one of them takes, by the rules of `AllocationPlanner` (onnxruntime/core/framework/allocation_planner.cc): a view
 * lies where its operand lies, and so does what an elementwise kernel writes over an operand that nobody else reads any more; else
 * a buffer of the same shape that is free is taken, else a new one. A buffer is given back after the last value that lies in it, or at the end.
 * `sources`: of the results that follow from these values only. What a side of an If gives lies where the If's results do.
 */
function spansOf(graph: Graph, sources?: ReadonlyMap<Value, number>, isSide = false): readonly Span[] {
  const order = executionOrder(graph);
  const follows = dependence(graph, sources ?? new Map());
  const given = new Set(graph.outputs.map(({ value }) => value));
  const reads = new Map<Value, number>();
  for (const value of [...order.flatMap(operands), ...graph.outputs.map(({ value }) => value)])
    reads.set(value, (reads.get(value) ?? 0) + 1);
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
      // What is given to the run, or is a weight, is no result.
      if (isView && read.length === 0) continue;
      const over = isView ? read[0] : isElementwise(node) ? read.find((buffer) => buffer.reads === 1 && buffer.shape === shape) : undefined;
      const known = over ?? freeOf(shape).pop();
      const buffer = known ?? { shape, bytes: bytesOf(value), from: at, to: at, reads: 0 };
      if (!known) all.push(buffer);
      buffer.reads += reads.get(value) ?? 0;
      bufferOf.set(value, buffer);
    }
    const most = subgraphs(node).map((within) =>
      peakOf(spansOf(within, sources && sourcesWithin(node, within, follows), isOp(node, "If"))),
    );
    if (most.length > 0) inner.push({ bytes: Math.max(...most), from: at, to: at });
    for (const buffer of read) buffer.reads -= 1;
    const touched = new Set([...read, ...node.outputs.flatMap((value) => bufferOf.get(value) ?? [])]);
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
