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
  const held = Matrix.eye(near.length).mul((ridge * products.trace()) / near.length);
  return start.add(solve(held.add(products), residual, true)).to1DArray();
}
