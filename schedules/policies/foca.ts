/**
 * FoCa (arXiv 2508.16211): a branch as the solution of an ODE. From step to step, also over its own forecasts, a BDF2 predictor (eq. 7)
 * is followed by a Heun corrector (eq. 8) that pulls towards the slope at the newest computed step. The equations are taken
 * from notes by an author of cache-dit (zhuanlan.zhihu.com/p/1952056591068144338); no code was published. How slopes follow from cached
 * values is our choice: the slope of a fill is taken over the distance to the fill before it; the slope of a forecast, as the notes
 * read it, over the step of the predictor. cache-dit's class of this name is another method: Heun's alone.
 */
import { z } from "zod";
import { difference, type Forecaster, forecastRow } from "../planning/forecast.js";
import { uniformOptions, uniformSteps } from "../planning/interval.js";
import { everywhere, type Policy } from "../policy.js";
import { sumOfTerms } from "../sampler.js";

const options = z.object(uniformOptions({ interval: 4, warmup: 2, phase: "taylorseer" }));

export default {
  name: "foca",
  summary: "compute every branch at every n-th step, and continue it by BDF2 and Heun's method between",
  needs: [],
  options,
  choose({ steps, sites, borders }, uniform) {
    return { cells: everywhere(sites, forecastRow(uniformSteps(steps, uniform), predictAndCorrect, borders)) };
  },
} satisfies Policy<typeof options>;

const predictAndCorrect: Forecaster = (step, fills) => {
  if (fills.length < 2) return difference(0, fills);
  const now = [{ step: step - 1, weight: 1 }];
  const before = [{ step: step - 2, weight: 1 }];
  const anchor = difference(1, fills);
  // By eq. 8 the step to a forecast was the mean of the predictor's slope and the anchor, so that slope follows from the step.
  const slope =
    step - 1 === fills[0]
      ? anchor
      : sumOfTerms([
          { weight: 2, terms: now },
          { weight: -2, terms: before },
          { weight: -1, terms: anchor },
        ]);
  const predicted = sumOfTerms([
    { weight: 4 / 3, terms: now },
    { weight: -1 / 3, terms: before },
    { weight: 2 / 3, terms: slope },
  ]);
  return sumOfTerms([
    { weight: 1 / 2, terms: now },
    { weight: 1 / 2, terms: anchor },
    { weight: 1 / 2, terms: predicted },
  ]);
};
