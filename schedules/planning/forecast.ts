/** Forecasts: the value of a branch at a step that does not compute it, as a weighted sum of its values at computed steps. */
import { entryAt } from "../../ir/entries.js";
import { cellOf, type ScheduleCell } from "../plan.js";
import { sumOfTerms, type Term } from "../sampler.js";

/**
 * The terms for the value at a step, over earlier steps. `fills` are the computed ones of these, newest first, at least one. A term may
 * also read a step that was itself forecast.
 */
export type Forecaster = (step: number, fills: readonly number[]) => readonly Term[];

/**
 * The row in which all steps that do not compute are forecast. Forecasts of forecasts are expanded into sums over fills. The first step
 * must compute. At a border (`Run.borders`) the row computes and begins anew, as at the first step.
 */
export function forecastRow(computes: readonly boolean[], forecast: Forecaster, borders: readonly number[] = []): readonly ScheduleCell[] {
  const fills: number[] = [];
  const values: (readonly Term[])[] = [];
  return computes.map((isFill, step): ScheduleCell => {
    const isBorder = borders.includes(step);
    if (isBorder) fills.length = 0;
    if (isFill || isBorder) {
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
 * TaylorSeer's series around the newest fill (arXiv 2503.06923, eq. 4 and 5) in a given basis: Σ basis(i, x) / i! · Δ^i for i up to
 * `order`, x steps after that fill; basis x^i is Taylor's. The order is lower while there are too few fills. As in TaylorSeer's code
 * (Shenyi-Z/TaylorSeer, `taylor_utils/__init__.py`), differences do not use fills before the second to last one of the warm-up.
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
 * The polynomial through the newest `order` + 1 fills, or as many as there are. In Lagrange's form it is exact for uneven fills, unlike
 * the recursion of `difference`.
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
 * The i-th backward difference at the newest fill, per step: the difference of order i − 1 there, minus that at the fill before,
 * divided by the distance of these two fills. Uneven distances of earlier fills are not corrected for.
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
