/** Forecasts: what a branch would return at a step that does not compute, as a weighted sum of what it returned at steps that did. */
import { entryAt } from "../../ir/entries.js";
import { cellOf, type ScheduleCell } from "../plan.js";
import { sumOfTerms, type Term } from "../sampler.js";

/**
 * Terms for the value of a step, over steps before it. `fills` are those of them that computed, the newest first, one at least.
 * A term may read a step that was forecast itself.
 */
export type Forecaster = (step: number, fills: readonly number[]) => readonly Term[];

/** The row in which the other steps are forecast; forecasts of forecasts become sums over fills. The first step has to compute. */
export function forecastRow(computes: readonly boolean[], forecast: Forecaster): readonly ScheduleCell[] {
  const fills: number[] = [];
  const values: (readonly Term[])[] = [];
  return computes.map((isFill, step): ScheduleCell => {
    if (isFill) {
      fills.unshift(step);
      values.push([{ step, weight: 1 }]);
      return 1;
    }
    const parts = forecast(step, fills).map(({ step: source, weight }) => ({ weight, terms: entryAt(values, source) }));
    const terms = sumOfTerms(parts).filter(({ weight }) => weight !== 0);
    values.push(terms);
    const isReuse = terms.length === 1 && terms[0]?.step === fills[0] && terms[0]?.weight === 1;
    return isReuse ? 0 : cellOf(terms);
  });
}

/**
 * TaylorSeer's series around the newest fill (arXiv 2503.06923, eq. 4 and 5) in a basis of choice: Σ basis(i, x) / i! · Δ^i for i up to
 * `order`, x steps after that fill; x^i is Taylor's. As long as there are few fills the order is lower. Its code
 * (Shenyi-Z/TaylorSeer, `taylor_utils/__init__.py`) takes no differences from fills before the last but one of the warm-up.
 */
export function differenceSeries(order: number, warmup: number, basis: (i: number, x: number) => number): Forecaster {
  return (step, fills) => {
    const usable = fills.filter((fill) => fill >= warmup - 2);
    const x = step - entryAt(usable, 0);
    const orders = Array.from({ length: Math.min(order + 1, usable.length) }, (_, i) => i);
    return sumOfTerms(orders.map((i) => ({ weight: basis(i, x) / factorial(i), terms: difference(i, usable) })));
  };
}

/**
 * The polynomial through the newest fills, `order` + 1 of them or as many as there are: Lagrange's form, exact however far apart the
 * fills are, which the recursion of `difference` is not.
 */
export function polynomial(order: number): Forecaster {
  return (step, fills) => {
    const nodes = fills.slice(0, order + 1);
    return nodes.map((node) => ({
      step: node,
      weight: nodes.reduce((product, other) => (other === node ? product : (product * (step - other)) / (node - other)), 1),
    }));
  };
}

/**
 * The i-th backward difference at the newest fill, per step: that of order i − 1 less the same at the fill before, over the distance
 * between these two, however uneven the fills before them are.
 */
export function difference(i: number, fills: readonly number[]): readonly Term[] {
  const newest = entryAt(fills, 0);
  if (i === 0) return [{ step: newest, weight: 1 }];
  const distance = newest - entryAt(fills, 1);
  return sumOfTerms([
    { weight: 1 / distance, terms: difference(i - 1, fills) },
    { weight: -1 / distance, terms: difference(i - 1, fills.slice(1)) },
  ]);
}

function factorial(n: number): number {
  return n === 0 ? 1 : n * factorial(n - 1);
}
