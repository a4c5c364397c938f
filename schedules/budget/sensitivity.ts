/** The effect of a branch's error on the result: its effect on the next latent, times the gain from that latent to the final one. */
import { entryAt } from "../../ir/entries.js";
import { relativeL2 } from "../fidelity.js";
import { polynomial } from "../planning/forecast.js";
import { cellOf } from "../plan.js";
import { type BranchGroup, everywhere, groupBranches, type PolicyInput, type Runs, statisticsOf } from "../policy.js";
import { squaredNorm } from "../planning/statistics.js";

/** The number of steps at which it is measured. Between them it is interpolated. */
const PROBES = 5;

/** The change of a branch by which its effect is measured, as a multiple of F₀ − F₁ of its newest computed values. */
const CHANGE = 0.5;

/** For every group and step: the relative change of the final latent per relative change of the group's branches. */
export type Sensitivity = ReadonlyMap<string, readonly number[]>;

/**
 * At a few steps of an uncached run, all branches are forecast. Then the branches of each group in turn are changed, and the next latent
 * is compared (effect = relative change of the latent / relative change of the branches). Then the run is finished without further
 * forecasts (gain = relative error of the final latent / relative error of the next latent).
 */
export function sensitivity(input: PolicyInput, runs: Runs, sample: number): Promise<Sensitivity> {
  const known = measured.get(runs) ?? measure(input, runs, sample);
  measured.set(runs, known);
  return known;
}

/** Measured sensitivities, as they are the same for all budgets. */
const measured = new WeakMap<Runs, Promise<Sensitivity>>();

async function measure({ steps, sites }: PolicyInput, runs: Runs, sample: number): Promise<Sensitivity> {
  const groups = groupBranches(sites);
  const exact = await runs.latents(sample);
  const probed = [...new Set(Array.from({ length: PROBES }, (_, i) => Math.round(2 + (i * (steps - 3)) / (PROBES - 1))))];
  const points = new Map(groups.map(({ key }) => [key, new Map<number, number>()]));
  for (const step of probed) {
    const terms = polynomial(1)(step, [step - 1, step - 2]);
    const row = Array.from({ length: steps }, (_, k) => (k === step ? cellOf(terms) : 1));
    // Where it reads another network's values, which is as good a change as any: a cell that computed would change nothing.
    const walk = await runs.walk(sample, { steps, across: true, cells: everywhere(sites, row) }, step - 2);
    for (let k = step - 2; k < step; k++) await (await walk.attempt()).advance();
    const attempt = await walk.attempt();
    const nextError = relativeL2(attempt.latent, entryAt(exact, step + 1));
    const changes = terms.map((term, i) => ({ ...term, weight: term.weight + (i === 0 ? CHANGE : -CHANGE) }));
    const local: [string, number][] = [];
    for (const group of groups) {
      const changed = await walk.attempt(new Map([[group.key, changes]]));
      local.push([group.key, relativeL2(changed.latent, attempt.latent) / (CHANGE * changeOf(group, step))]);
    }
    await attempt.advance();
    let latent = attempt.latent;
    for (let k = step + 1; k < steps; k++) {
      const next = await walk.attempt();
      await next.advance();
      latent = next.latent;
    }
    const gain = relativeL2(latent, entryAt(exact, steps)) / nextError;
    for (const [key, effect] of local) points.get(key)?.set(step, effect * gain);
  }
  return new Map([...points].map(([key, own]) => [key, interpolated(own, steps)]));
}

/** ‖F₁ − F₀‖ / ‖F‖ of a group's branches, pooled. */
function changeOf({ sites }: BranchGroup, step: number): number {
  let change = 0;
  let size = 0;
  for (const statistics of statisticsOf(sites)) {
    change += squaredNorm(statistics, [{ step: step - 1, weight: 1 }, { step: step - 2, weight: -1 }]); // prettier-ignore
    size += squaredNorm(statistics, [{ step, weight: 1 }]);
  }
  return Math.sqrt(change / size);
}

/** Linear interpolation between the points, constant beyond them. */
function interpolated(points: ReadonlyMap<number, number>, steps: number): readonly number[] {
  const known = [...points];
  return Array.from({ length: steps }, (_, step) => {
    const before = known.findLast(([place]) => place <= step) ?? known[0];
    const after = known.find(([place]) => place >= step) ?? known.at(-1);
    if (!before || !after) return 1;
    const [[from, low], [to, high]] = [before, after];
    return from === to ? low : low + ((high - low) * (step - from)) / (to - from);
  });
}
