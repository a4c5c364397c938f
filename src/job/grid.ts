/** Positions that the network takes as an input, in closed form: the coordinates of the points of a grid. */
import { badGrid } from "../words/index.js";

/**
 * The coordinates of a grid's points for an input of `shape` [, rows, columns]: one point a row, one column for each of `sizes`, the last
 * size running fastest; the same for whatever comes before the rows. Sizes that are null are equal, and as large as the rows
 * allow. Throws BAD_GRID.
 */
export function gridPoints(input: string, shape: readonly number[], sizes: readonly (number | null)[]): readonly number[] {
  const [rows = 1, columns = 1] = shape.slice(-2);
  const known = sizes.reduce<number>((product, size) => product * (size ?? 1), 1);
  const open = sizes.filter((size) => size === null).length;
  const side = Math.round((rows / known) ** (1 / Math.max(1, open)));
  const grid = sizes.map((size) => size ?? side);
  if (shape.length < 2 || columns !== sizes.length || known * side ** open !== rows) throw badGrid(input, shape, sizes);
  const point = (row: number): readonly number[] => {
    const strides = grid.map((_, axis) => grid.slice(axis + 1).reduce((product, size) => product * size, 1));
    return grid.map((size, axis) => Math.floor(row / (strides[axis] ?? 1)) % size);
  };
  const points = Array.from({ length: rows }, (_, row) => point(row)).flat();
  const repeats = shape.slice(0, -2).reduce((product, size) => product * size, 1);
  return Array.from({ length: repeats }, () => points).flat();
}
