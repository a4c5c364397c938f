/**
 * Reduces the branch values of a trajectory to statistics, step by step, with models that the runtime executes. Holds a window of steps.
 */
import { Builder } from "../../ir/build.js";
import { badCurves } from "../../schedules/diagnostics.js";
import { constant, inputValue, type Model, type Value } from "../../ir/graph.js";
import { readTensor, type TensorData, tensorNumbers, tensorOf } from "../../ir/tensor.js";
import { byteSize, ELEMENT_TYPES, elementCount, type ElementType, type TensorType } from "../../ir/types.js";
import type { SiteStatistics } from "../../schedules/index.js";
import { type RuntimeOptions, Session, type Tensors } from "../runtime/index.js";
import { L1_LAGS } from "./trace.js";
import type { StepWindow } from "./window.js";

/**
 * The approximate number of elements in a block. It limits the memory of a reduction, which holds the block's differences between steps.
 */
const BLOCK_ELEMENTS = 1 << 14;

/** Digits of the ratios. Measurements are no more precise, and ratios make up most of a trace file. */
const RATIO_DIGITS = 7;

/** Computes the statistics of one trajectory after another, with the same memory for all. */
export class Reductions {
  private readonly sites = new Map<string, MeasuredBranch>();
  private readonly spare = new Map<number, Uint8Array[]>();
  private readonly sessions = new Map<ElementType, Session>();
  /** The number of lags that differences are taken at, at least 1. */
  private readonly lags: number;
  /** Rows of the window that hold a step, and those of them that have been reduced. */
  private held = 0;
  private reduced = 0;

  constructor(
    private readonly steps: number,
    private readonly window: Pick<StepWindow, "rows" | "lags">,
    private readonly options: RuntimeOptions = {},
  ) {
    this.lags = Math.max(1, Math.min(L1_LAGS, window.lags));
  }

  /** Takes the values of one step; steps come in order. Throws BAD_CURVES for branches that are not finite, or 0 throughout a step. */
  async observe(step: number, branches: Tensors): Promise<void> {
    for (const [name, value] of branches) {
      const site = this.sites.get(name) ?? this.open(value);
      this.sites.set(name, site);
      put(site, this.held, readTensor(value));
    }
    this.held++;
    if (this.held < this.window.rows && step < this.steps - 1) return;
    const kept = Math.min(this.window.lags, this.held);
    for (const [name, site] of this.sites) {
      await this.reduce(name, site, step);
      for (const { bytes, rowBytes } of site.blocks) bytes.copyWithin(0, (this.held - kept) * rowBytes, this.held * rowBytes);
    }
    this.held = kept;
    this.reduced = kept;
  }

  /** The statistics of the trajectory that has been observed, as of one sample. The next one may have other branches. */
  finish(): ReadonlyMap<string, SiteStatistics> {
    const result = new Map<string, SiteStatistics>();
    for (const [name, { sums, tokens, blocks }] of this.sites) {
      const { norm, diff, gram, gain } = sums;
      const ratios = diff.map((row) => row.map((value, step) => Number((value / (norm[step] ?? NaN)).toPrecision(RATIO_DIGITS))));
      result.set(name, { norm, diff, ratio: [ratios], gram, gain: gain.map((value) => value / tokens) });
      for (const { bytes } of blocks) this.spare.set(bytes.byteLength, [...(this.spare.get(bytes.byteLength) ?? []), bytes]);
    }
    this.sites.clear();
    this.held = 0;
    this.reduced = 0;
    return result;
  }

  async close(): Promise<void> {
    for (const session of this.sessions.values()) await session.close();
  }

  private open({ elem, shape }: TensorData): MeasuredBranch {
    const width = shape.at(-1) ?? 1;
    const tokens = elementCount(shape) / width;
    const most = Math.ceil(tokens / Math.max(1, Math.round((tokens * width) / BLOCK_ELEMENTS)));
    const blocks = Array.from({ length: Math.ceil(tokens / most) }, (_, i) => {
      const own = Math.min(most, tokens - i * most);
      const rowBytes = byteSize(elem, own * width);
      return { tokens: own, rowBytes, bytes: this.memory(this.window.rows * rowBytes) };
    });
    const row = (): number[] => new Array<number>(this.steps).fill(0);
    const rows = (count: number): number[][] => Array.from({ length: count }, row);
    const { lags } = this.window;
    const sums = { norm: row(), diff: rows(Math.min(L1_LAGS, lags)), gram: rows(lags + 1), gain: row() };
    return { elem, width, tokens, blocks, sums };
  }

  private memory(size: number): Uint8Array {
    return this.spare.get(size)?.pop() ?? new Uint8Array(size);
  }

  /** Adds what the rows that are new contribute; `step` is that of the last of them. */
  private async reduce(name: string, site: MeasuredBranch, step: number): Promise<void> {
    const { held, reduced } = this;
    const { norm, diff, gram, gain } = site.sums;
    const first = step - held + 1;
    const pivot = Math.max(reduced, 1) - 1;
    const moves: Moves = { toPivot: [], toMoves: [] };
    const session = await this.sessionFor(site.elem);
    for (const block of site.blocks) {
      const rows = (from: number, to: number): TensorData => rowsTensor(site, block, from, to);
      const feeds = new Map([
        ["values", rows(0, held)],
        ["fresh", rows(reduced, held)],
        ["pivot", rows(pivot, pivot + 1)],
      ]);
      const difference = (name: string, lag: number, from: number, to: number): void => {
        feeds.set(`later_${name}`, rows(from, to));
        feeds.set(`earlier_${name}`, rows(from - lag, to - lag));
      };
      difference("old", 1, 1, pivot + 1);
      for (let lag = 1; lag <= this.lags; lag++) difference(`${lag}`, lag, Math.max(reduced, lag), held);
      const results = await session.run(feeds);
      const sizes = resultNumbers(results, "size");
      addTo(norm, first + reduced, resultNumbers(results, "norm"));
      for (const [lag, sums] of diff.entries()) addTo(sums, first + Math.max(reduced, lag + 1), resultNumbers(results, `diff_${lag + 1}`));
      if (reduced === 0) addTo(gram[0] ?? [], first, [sizes.slice(0, block.tokens).reduce((sum, size) => sum + size ** 2, 0)]);
      addTo(moves.toPivot, 0, resultNumbers(results, "to_pivot"));
      addTo(moves.toMoves, 0, resultNumbers(results, "to_moves"));
      addTo(gain, first + Math.max(reduced, 1), gains(sizes, block.tokens, Math.max(reduced, 1), held));
    }
    extend(gram, first, pivot, held, moves);
    for (let at = first + reduced; at <= step; at++) {
      const value = norm[at] ?? NaN;
      if (!(Number.isFinite(value) && value > 0))
        throw badCurves(name, `at step ${at} the sum of the branch's absolute values is ${value}`);
    }
  }

  private async sessionFor(elem: ElementType): Promise<Session> {
    const known = this.sessions.get(elem);
    if (known) return known;
    const model = reductionModel(elem, this.lags);
    const session = await Session.open(model, { ...this.options, device: "cpu", optimise: "disabled" });
    this.sessions.set(elem, session);
    return session;
  }
}

/** One branch during a trajectory. */
interface MeasuredBranch {
  readonly elem: ElementType;
  /** Elements of a token: those of the last axis. */
  readonly width: number;
  readonly tokens: number;
  readonly blocks: readonly Block[];
  readonly sums: Readonly<Record<"norm" | "gain", number[]> & Record<"diff" | "gram", number[][]>>;
}

/** Some tokens of a branch. Their values at the steps of the window are stored one after the other, so that rows are views. */
interface Block {
  readonly tokens: number;
  readonly rowBytes: number;
  readonly bytes: Uint8Array;
}

function put({ blocks }: MeasuredBranch, row: number, value: Uint8Array): void {
  let at = 0;
  for (const { bytes, rowBytes } of blocks) {
    bytes.set(value.subarray(at, at + rowBytes), row * rowBytes);
    at += rowBytes;
  }
}

function rowsTensor({ elem, width }: MeasuredBranch, { tokens, rowBytes, bytes }: Block, from: number, to: number): TensorData {
  return { elem, shape: [to - from, tokens, width], content: { kind: "bytes", bytes: bytes.subarray(from * rowBytes, to * rowBytes) } };
}

/** For rows `from` to `to`, the sum over tokens of their size relative to that in the row before. */
function gains(sizes: readonly number[], tokens: number, from: number, to: number): number[] {
  return Array.from({ length: to - from }, (_, i) => {
    let sum = 0;
    for (let at = (from + i) * tokens; at < (from + i + 1) * tokens; at++) {
      const before = sizes[at - tokens] ?? NaN;
      sum += before === 0 ? 1 : (sizes[at] ?? NaN) / before;
    }
    return sum;
  });
}

/**
 * Adds the inner products of the rows after `pivot`, up to `held`; row 0 belongs to step `first`. They are computed from those of the
 * moves M_q = V_q − V_{q−1}: the error of a forecast is a sum of moves, which is much smaller than the values and would be lost in the
 * rounding of products of values. `moves` has ⟨M_p, V_pivot⟩ of the rows p after the pivot, and ⟨M_p, M_q⟩ by p, then q from 1.
 * With E_i = V_i − V_pivot:
 *   ⟨V_i, V_j⟩ = ⟨V_pivot, V_j⟩ + ⟨E_i, V_j⟩ where ⟨E_i, V_j⟩ − ⟨E_i, V_{j−1}⟩ = ⟨E_i, M_j⟩
 * The error of squared norms is about 3 · 10⁻⁷ of the first one; that is a thousandth where a branch shrinks to an 80th during a run.
 */
function extend(gram: readonly number[][], first: number, pivot: number, held: number, moves: Moves): void {
  // For the current row i: ⟨E_i, V_pivot⟩, ⟨E_i, M_q⟩ for all q, ⟨V_pivot, V_j⟩ for all j up to i.
  let toPivot = 0;
  const toMoves = new Float64Array(held);
  const ofPivot = Array.from({ length: pivot + 1 }, (_, j) => gram[pivot - j]?.[first + pivot] ?? NaN);
  const square = ofPivot[pivot] ?? NaN;
  for (let i = pivot + 1; i < held; i++) {
    const p = i - pivot - 1;
    toPivot += moves.toPivot[p] ?? NaN;
    for (let q = 1; q < held; q++) toMoves[q] = (toMoves[q] ?? NaN) + (moves.toMoves[p * (held - 1) + q - 1] ?? NaN);
    ofPivot.push(square + toPivot);
    const enter = (j: number, product: number): void => {
      const row = gram[i - j];
      if (row) row[first + i] = (ofPivot[j] ?? NaN) + product;
    };
    let product = toPivot;
    for (let j = pivot; j >= 0; j--) {
      enter(j, product);
      product -= toMoves[j] ?? NaN;
    }
    product = toPivot;
    for (let j = pivot + 1; j <= i; j++) {
      product += toMoves[j] ?? NaN;
      enter(j, product);
    }
  }
}

/** The inner products of a branch's moves after the pivot with its value at the pivot, and with all moves of the window. */
interface Moves {
  readonly toPivot: number[];
  readonly toMoves: number[];
}

/**
 * The model that reduces a block. Inputs are [rows, tokens, width]: `values` and `fresh` (rows not yet reduced) → `size` (L2 of the
 * tokens), `norm` (L1 of the fresh rows); `later_<lag>`, `earlier_<lag>` → `diff_<lag>`, the L1 norms of their differences; those of
 * lag 1 with `pivot` (one row) → `to_pivot`, and with themselves behind those of `later_old`, `earlier_old` → `to_moves`: inner products.
 */
function reductionModel(elem: ElementType, lags: number): Model {
  const build = new Builder();
  const rowsType = (elem: ElementType): TensorType => ({ elem, shape: [null, null, null] });
  const input = (name: string): Value => inputValue(name, rowsType(elem));
  const cast = (value: Value, to: ElementType): Value =>
    elem === to
      ? value
      : build.op("Cast", [value], `${value.name}_${to}`, rowsType(to), { to: { kind: "int", value: BigInt(ELEMENT_TYPES[to].code) } });
  const matrix: TensorType = { elem: "float", shape: [null, null] };
  const flat = (value: Value): Value => build.op("Flatten", [value], `${value.name}_flat`, matrix);
  const sumOver = (axis: number, value: Value, name: string): Value =>
    build.op("ReduceSum", [value, constant(`axis_${axis}`, tensorOf("int64", [1], [axis]))], name, { elem: "float", shape: null }, { keepdims: { kind: "int", value: 0n } }); // prettier-ignore
  // In ONNX Runtime, Abs and ReduceSum are a few times faster than ReduceL1; the same holds for ReduceL2.
  const l1 = (value: Value, name: string): Value => sumOver(1, flat(build.op("Abs", [value], `${name}_abs`, rowsType("float"))), name);

  const difference = (name: string): Value => {
    const pair = [input(`later_${name}`), input(`earlier_${name}`)];
    inputs.push(...pair);
    return build.op("Sub", pair.map((value) => cast(value, "float")), `difference_${name}`, rowsType("float")); // prettier-ignore
  };
  const products = (rows: Value, others: Value, name: string): Value =>
    build.op("Gemm", [rows, others], name, matrix, { transB: { kind: "int", value: 1n } });

  const [values, fresh, pivot] = [input("values"), input("fresh"), input("pivot")];
  const inputs = [values, fresh, pivot];
  const floats = cast(values, "float");
  const squares = build.op("Mul", [floats, floats], "squares", rowsType("float"));
  const size = build.op("Sqrt", [sumOver(2, squares, "size_squared")], "size", { elem: "float", shape: [null, null] });
  const differences = Array.from({ length: lags }, (_, lag) => difference(`${lag + 1}`));
  const outputs = [
    { name: "size", value: size },
    { name: "norm", value: l1(cast(fresh, "float"), "norm") },
    ...differences.map((value, lag) => ({ name: `diff_${lag + 1}`, value: l1(value, `diff_${lag + 1}`) })),
  ];
  const moves = flat(differences[0] ?? difference("1"));
  const toMoves = [flat(difference("old")), moves].map((others) => products(moves, others, `to_${others.name}`));
  const joined = build.op("Concat", toMoves, "to_moves", matrix, { axis: { kind: "int", value: 1n } });
  outputs.push({ name: "to_pivot", value: products(moves, flat(cast(pivot, "float")), "to_pivot") }, { name: "to_moves", value: joined });
  return {
    graph: { name: "statistics", inputs, outputs, nodes: build.nodes, marks: [] },
    opsets: new Map([["", 17]]),
    irVersion: 8,
    metadata: new Map(),
  };
}

function resultNumbers(results: Tensors, name: string): readonly number[] {
  const data = results.get(name);
  if (!data) throw new Error(`internal: the reductions have no '${name}'`);
  return tensorNumbers(data);
}

/** Adds values to entries from `at` on. */
function addTo(sums: number[], at: number, values: readonly number[]): void {
  for (const [i, value] of values.entries()) sums[at + i] = (sums[at + i] ?? 0) + value;
}
