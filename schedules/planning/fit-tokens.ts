/** Fits the arrays of partial cells to runs without caching: which tokens are computed, and how the others move with them. */
import { type TensorData, tensorFloats } from "../../ir/tensor.js";
import type { CellArrays } from "../adjustment.js";
import { type Fresh, freshOf, isPartialCell, type PartialCell, tokenCount } from "../partial.js";
import { type ScheduleCell, termsOf } from "../plan.js";
import type { PolicyInput, Runs } from "../policy.js";
import type { Term } from "../sampler.js";
import { ridgeMatrix } from "./least-squares.js";

/**
 * The row of a cache that has `count` tokens, whose partial cells list theirs (`by: "mask"`), with the arrays of these by step: the tokens, where
 * they are not to be chosen.
 */
export interface TokenRow {
  readonly name: string;
  readonly count: number;
  /** How many are a row of the picture, if that is known. */
  readonly columns?: number | undefined;
  readonly cells: readonly ScheduleCell[];
  readonly arrays: Map<number, CellArrays>;
}

export interface TokenFit {
  /** Whether the tokens are chosen (`by: "mask"`). */
  readonly chooses: boolean;
  /** By how much the miss of a token counts less when its neighbour in the sequence was chosen, from 0 to 1. */
  readonly spread: number;
  /** Whether weights are fitted by which the other tokens move. */
  readonly moves: boolean;
}

/** Each has as many equations for a token as the branch has channels. */
const MOST_SAMPLES = 4;

/** How firmly moves are held at 0, in mean squares of what moves them. */
const RIDGE = 1e-2;

/**
 * Adds the arrays of all partial cells to the rows. What a cell forecasts depends on what the partial cells before it have computed, so that the
 * first ones after full steps are fitted first, then the second ones, and so on; each time the runs are gone through once for the choice and
 * once for the moves. Values are of runs without caching. In memory are those that later cells read, the sums of the cells that are being fitted
 * (N misses of N tokens, and K × N products for K computed ones) and what was fitted.
 */
export async function fitTokens(
  { progress }: Pick<PolicyInput, "progress">,
  runs: Runs,
  rows: readonly TokenRow[],
  { chooses, spread, moves }: TokenFit,
): Promise<void> {
  const samples = runs.samples.slice(0, MOST_SAMPLES);
  const followed = rows.map(followedRow);
  const placesOf = ({ cells, readings }: FollowedRow): readonly number[] =>
    readings.flatMap((reading, step) => (reading && isPartialCell(cells[step]) ? [reading.place + 1] : []));
  const places = Math.max(0, ...followed.flatMap(placesOf));
  const passes = Number(chooses) + Number(moves);
  let done = 0;
  const observe = async (place: number, visit: (row: FollowedRow, cell: Observed) => void): Promise<void> => {
    for (const sample of samples) {
      await follow(runs, sample, followed, place, visit);
      progress(++done, places * passes * samples.length);
    }
  };
  for (let place = 0; place < places; place++) {
    if (chooses) {
      const misses = new CellSums(({ count }) => new Float64Array(count));
      await observe(place, (row, cell) => {
        addMisses(misses.of(row, cell.step), cell);
      });
      for (const { row, step, sum } of misses.all())
        row.arrays.set(step, { tokens: spreadTokens(sum, tokenCount(partialAt(row, step).tokens, row.count), spread, row.columns) });
    }
    if (moves) {
      const products = new CellSums((row, step) => new Products(listedAt(row, step)));
      await observe(place, (row, cell) => {
        products.of(row, cell.step).add(cell);
      });
      for (const { row, step, sum } of products.all()) row.arrays.set(step, { tokens: sum.fresh.tokens, move: sum.fit() });
    }
  }
}

/**
 * `size` tokens, by rising number: one after the other that of the largest miss. With each that is chosen, the misses of those beside it count less by
 * `spread`: in the picture, or in the sequence where it is not known how they lie in one.
 */
export function spreadTokens(misses: ArrayLike<number>, size: number, spread: number, columns?: number): readonly number[] {
  const left = Float64Array.from(misses);
  const chosen = new Set<number>();
  while (chosen.size < size) {
    let best = -1;
    for (const [token, miss] of left.entries()) if (!chosen.has(token) && (best < 0 || miss > (left[best] ?? NaN))) best = token;
    chosen.add(best);
    for (const near of neighbours(best, left.length, columns)) left[near] = (left[near] ?? NaN) * (1 - spread);
  }
  return [...chosen].sort((a, b) => a - b);
}

/** The tokens left and right of one, and above and below it. */
function neighbours(token: number, count: number, columns = count): readonly number[] {
  const column = token % columns;
  return [
    ...(column > 0 ? [token - 1] : []),
    ...(column + 1 < columns ? [token + 1] : []),
    ...[token - columns, token + columns].filter((near) => near >= 0 && near < count),
  ];
}

/** A partial cell of a row in a run without caching. */
interface Observed {
  readonly step: number;
  readonly forecast: Float32Array;
  /** What its step computes, less the forecast. */
  readonly surprise: Float32Array;
  readonly channels: number;
}

/** What a cached cell reads, and how many partial cells there are before it since all tokens were computed. */
interface Reading {
  readonly terms: readonly Term[];
  readonly place: number;
}

/** A row with what its cells read, and for each step that is read the last that does. */
interface FollowedRow extends TokenRow {
  /** By step; undefined where all tokens are computed. */
  readonly readings: readonly (Reading | undefined)[];
  readonly readers: ReadonlyMap<number, number>;
}

function followedRow(row: TokenRow): FollowedRow {
  const readers = new Map<number, number>();
  let [latest, place] = [0, 0];
  const readings = row.cells.map((cell, step) => {
    const reading = cell === 1 ? undefined : { terms: termsOf(cell, latest), place };
    for (const term of reading?.terms ?? []) readers.set(term.step, step);
    if (cell === 1) place = 0;
    if (isPartialCell(cell)) place++;
    if (cell === 1 || isPartialCell(cell)) latest = step;
    return reading;
  });
  return { ...row, readings, readers };
}

/** Goes through a run without caching, along the values that rows have at partial cells of earlier places, and visits the cells of this one. */
async function follow(
  runs: Runs,
  sample: number,
  rows: readonly FollowedRow[],
  place: number,
  visit: (row: FollowedRow, cell: Observed) => void,
): Promise<void> {
  const kept = rows.map((row) => ({ row, held: new Map<number, Float32Array>() }));
  await runs.run(sample, undefined, (step, values) => {
    for (const { row, held } of kept) {
      const value = values.get(row.name);
      if (!value) continue;
      const reading = row.readings[step];
      const isRead = row.readers.has(step);
      if (!reading && isRead) held.set(step, Float32Array.from(tensorFloats(value)));
      if (reading && isPartialCell(row.cells[step]) && reading.place <= place) {
        const cell = observed(value, step, reading.terms, held);
        if (reading.place === place) visit(row, cell);
        else if (isRead) held.set(step, refreshed(cell, listedAt(row, step)));
      }
      for (const source of held.keys()) if ((row.readers.get(source) ?? -1) <= step && source < step) held.delete(source);
    }
  });
}

function observed(value: TensorData, step: number, terms: readonly Term[], held: ReadonlyMap<number, Float32Array>): Observed {
  const own = tensorFloats(value);
  const forecast = new Float32Array(own.length);
  for (const { step: source, weight } of terms) {
    const read = held.get(source);
    for (let i = 0; i < forecast.length; i++) forecast[i] = (forecast[i] ?? NaN) + weight * (read?.[i] ?? NaN);
  }
  return { step, forecast, surprise: forecast.map((value, i) => (own[i] ?? NaN) - value), channels: value.shape.at(-1) ?? 1 };
}

function partialAt({ cells }: TokenRow, step: number): PartialCell {
  const cell = cells[step];
  if (!isPartialCell(cell)) throw new Error(`internal: step ${step} has no partial cell`);
  return cell;
}

/** The tokens of a cell, which are listed, and its moves if they are known. */
interface Listed extends Fresh {
  readonly tokens: readonly number[];
}

function listedAt(row: FollowedRow, step: number): Listed {
  const arrays = row.arrays.get(step);
  const cell = { ...partialAt(row, step), move: arrays?.move !== undefined };
  const fresh = freshOf(cell, { key: row.name, step, turn: 0, count: row.count }, arrays);
  if (!fresh.tokens) throw new Error(`internal: step ${step} lists no tokens`);
  return { ...fresh, tokens: fresh.tokens };
}

/** Calls `add` for each of these tokens, in each row of a value, with where its channels begin in it and those of the row. */
function eachToken(
  { surprise, channels }: Observed,
  count: number,
  tokens: readonly number[],
  add: (token: number, at: number, row: number) => void,
): void {
  for (let row = 0; row < surprise.length; row += count * channels) for (const token of tokens) add(token, row + token * channels, row);
}

/** ‖surprise‖² of each token. */
function addMisses(misses: Float64Array, cell: Observed): void {
  eachToken(cell, misses.length, [...misses.keys()], (token, at) => {
    misses[token] = (misses[token] ?? NaN) + product(cell, at, at);
  });
}

/** The inner product of the surprises of two tokens, whose channels begin there. */
function product({ surprise, channels }: Observed, one: number, other: number): number {
  let sum = 0;
  for (let c = 0; c < channels; c++) sum += (surprise[one + c] ?? NaN) * (surprise[other + c] ?? NaN);
  return sum;
}

/** The value of a partial cell: forecast, with the surprises of its tokens, and the others moved by these. */
function refreshed(cell: Observed, { tokens, count, move }: Listed): Float32Array {
  const { forecast, surprise, channels } = cell;
  const value = Float32Array.from(forecast);
  const addAt = (at: number, from: number, weight: number): void => {
    for (let c = 0; c < channels; c++) value[at + c] = (value[at + c] ?? NaN) + weight * (surprise[from + c] ?? NaN);
  };
  const isFresh = new Set(tokens);
  eachToken(cell, count, [...Array(count).keys()], (token, at, row) => {
    if (isFresh.has(token)) addAt(at, at, 1);
    else if (move) for (const [i, from] of tokens.entries()) addAt(at, row + from * channels, move[token * tokens.length + i] ?? NaN);
  });
  return value;
}

/** Sums for cells of rows. */
class CellSums<S> {
  private readonly sums = new Map<FollowedRow, Map<number, S>>();

  constructor(private readonly none: (row: FollowedRow, step: number) => S) {}

  of(row: FollowedRow, step: number): S {
    const ofRow = this.sums.get(row) ?? new Map<number, S>();
    const sum = ofRow.get(step) ?? this.none(row, step);
    this.sums.set(row, ofRow.set(step, sum));
    return sum;
  }

  all(): readonly { readonly row: FollowedRow; readonly step: number; readonly sum: S }[] {
    return [...this.sums].flatMap(([row, ofRow]) => Array.from(ofRow, ([step, sum]) => ({ row, step, sum })));
  }
}

/** Inner products of the surprises of computed tokens with those of all, over channels, rows and samples. */
class Products {
  private readonly withAll: readonly Float64Array[];

  constructor(readonly fresh: Listed) {
    const { tokens, count } = fresh;
    this.withAll = tokens.map(() => new Float64Array(count));
  }

  add(cell: Observed): void {
    const { tokens, count } = this.fresh;
    eachToken(cell, count, [...Array(count).keys()], (token, at, row) => {
      for (const [i, from] of tokens.entries()) {
        const sums = this.withAll[i];
        if (sums) sums[token] = (sums[token] ?? NaN) + product(cell, row + from * cell.channels, at);
      }
    });
  }

  /** The weights [all, fresh] that bring the surprise of each token nearest to a sum of those of the computed ones. */
  fit(): Float32Array {
    const { tokens, count } = this.fresh;
    const gram = this.withAll.map((sums) => tokens.map((token) => sums[token] ?? NaN));
    const weights = ridgeMatrix(gram, this.withAll, RIDGE);
    return Float32Array.from(
      { length: count * tokens.length },
      (_, i) => weights[i % tokens.length]?.[Math.floor(i / tokens.length)] ?? NaN,
    );
  }
}
