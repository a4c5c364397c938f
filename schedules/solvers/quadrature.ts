/** Quadrature weights: multistep solvers integrate the polynomial through past outputs of the model. */
import { entryAt } from "../../ir/entries.js";

/**
 * Weights w_j with Σ w_j · s_j^n = moments[n]: Σ w_j · f(s_j) integrates the polynomial through (s_j, f(s_j)) exactly where
 * moments[n] is the integral of s^n. As many moments as nodes; nodes are distinct.
 */
export function interpolationWeights(nodes: readonly number[], moments: readonly number[]): readonly number[] {
  return nodes.map((node, j) => {
    // The Lagrange polynomial of node j by its coefficients, lowest first.
    let polynomial: readonly number[] = [1];
    for (const [i, other] of nodes.entries()) {
      if (i === j) continue;
      const scale = node - other;
      polynomial = [...polynomial, 0].map((coefficient, n) => ((polynomial[n - 1] ?? 0) - coefficient * other) / scale);
    }
    return polynomial.reduce((sum, coefficient, n) => sum + coefficient * entryAt(moments, n), 0);
  });
}

/**
 * Moments ∫ e^(−r(1 − u/h)) · u^n · (r/h) du over [0, h], n < count, with r = `reach`, h = `length`: a step of length h in lambda
 * integrates a polynomial in u = lambda − lambda_k under an exponential (arXiv 2211.01095, eq. 4.1; the weights of the step are alpha
 * times these). r is h for the ODE, and more for an SDE. The first moment has a limit at h = 0 and at h = ∞, the others none.
 */
export function exponentialMoments(length: number, reach: number, count: number): readonly number[] {
  const moments = [-Math.expm1(-reach)];
  for (let n = 1; n < count; n++) moments.push(length ** n - (n * length * entryAt(moments, n - 1)) / reach);
  return moments;
}

/** Adams–Bashforth weights of the last `count` values at even distances, the newest first: 1; 3/2, −1/2; 23/12, −16/12, 5/12; … */
export function adamsBashforthWeights(count: number): readonly number[] {
  const nodes = Array.from({ length: count }, (_, back) => -back);
  return interpolationWeights(
    nodes,
    nodes.map((_, n) => 1 / (n + 1)),
  );
}
