/** Fitted weights: least squares from inner products alone. */
import { Matrix, solve } from "ml-matrix";

/**
 * The weights w that minimise ‖y − Σ w_i x_i‖² + ridge · m · ‖w − near‖², where m is the mean of ‖x_i‖², from ⟨x_i, x_j⟩ and ⟨x_i, y⟩.
 * If the minimum is not unique, the weights closest to `near`. All numbers must be finite.
 */
export function ridgeWeights(
  gram: readonly (readonly number[])[],
  target: readonly number[],
  near: readonly number[],
  ridge: number,
): readonly number[] {
  const products = new Matrix(gram.map((row) => [...row]));
  const start = Matrix.columnVector([...near]);
  const residual = Matrix.columnVector([...target]).sub(products.mmul(start));
  return start.add(solved(products, residual, ridge)).to1DArray();
}

/** The same for several y at once, with all weights near 0: `products[i]` are the ⟨x_i, y⟩. The weights of x_i, for each y. */
export function ridgeMatrix(
  gram: readonly ArrayLike<number>[],
  products: readonly ArrayLike<number>[],
  ridge: number,
): readonly (readonly number[])[] {
  const matrix = (rows: readonly ArrayLike<number>[]): Matrix => new Matrix(rows.map((row) => Array.from(row)));
  return solved(matrix(gram), matrix(products), ridge).to2DArray();
}

function solved(gram: Matrix, products: Matrix, ridge: number): Matrix {
  const held = Matrix.eye(gram.rows).mul((ridge * gram.trace()) / gram.rows);
  return solve(held.add(gram), products, true);
}
