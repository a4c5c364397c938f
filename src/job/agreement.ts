/** Whether the networks of a run go together: what the run feeds them, what they give, and what caches hold is the same for all of them. */
import { stepCost, totalMacs } from "../../ir/cost.js";
import { ditView, type Model, type Value } from "../../ir/graph.js";
import { namedSizes, type TensorType } from "../../ir/types.js";
import { networksDiffer } from "../words/index.js";
import type { Network } from "./network.js";

/** Throws NETWORKS_DIFFER unless the inputs of a further network have the names and the roles that those of the first have. */
export function assertSameInputs(first: Network, other: Network): void {
  const file = other.source.modelFile;
  const own = other.step.graph.inputs.map(({ name }) => name);
  const wanted = first.step.graph.inputs.map(({ name }) => name);
  const missing = wanted.find((name) => !own.includes(name));
  if (missing !== undefined) throw networksDiffer(file, `it has no input '${missing}', which the first network has`);
  const stray = own.find((name) => !wanted.includes(name));
  if (stray !== undefined) throw networksDiffer(file, `it has an input '${stray}', which the first network does not have`);
  for (const role of ["latent", "timestep"] as const)
    if (other.ports[role] !== first.ports[role])
      throw networksDiffer(file, `its ${role} is '${other.ports[role]}', and that of the first network '${first.ports[role]}'`);
}

/**
 * Throws NETWORKS_DIFFER unless the inputs of a further network, bound as the first is, have the same types as there, and both are of the
 * same operator sets, as they become one model.
 */
export function assertSameTypes(first: Model, other: Model, file: string): void {
  for (const input of other.graph.inputs) assertSame(file, `input '${input.name}'`, input.type, namedAs(first, input)?.type);
  for (const [domain, version] of other.opsets) {
    const wanted = first.opsets.get(domain) ?? version;
    if (version !== wanted)
      throw networksDiffer(
        file,
        `it is of version ${version} of the operators of '${domain || "ai.onnx"}', the first network of ${wanted}`,
      );
  }
}

/** The sizes that a further network's symbolic dimensions have where its inputs are as large as those of the first. */
export function sizesLike(first: Model, other: Model): ReadonlyMap<string, number> {
  return namedSizes(other.graph.inputs.map((input) => [input.type?.shape, namedAs(first, input)?.type?.shape]));
}

function namedAs({ graph }: Model, { name }: Value): Value | undefined {
  return graph.inputs.find((input) => input.name === name);
}

/**
 * Throws NETWORKS_DIFFER unless a further network, lifted, gives what the first gives and has the same branches with values of the same
 * types at the same cost: a plan has one row for both, and is priced by the first.
 */
export function assertSameBranches(first: Model, other: Model, file: string): void {
  assertSame(file, "prediction", other.graph.outputs[0]?.value.type, first.graph.outputs[0]?.value.type);
  const [own, wanted] = [branchesOf(other), branchesOf(first)];
  const stray = [...wanted.keys(), ...own.keys()].find((site) => !own.has(site) || !wanted.has(site));
  if (stray !== undefined) throw networksDiffer(file, `only ${own.has(stray) ? "it" : "the first network"} has a branch '${stray}'`);
  for (const [site, text] of own)
    if (text !== wanted.get(site))
      throw networksDiffer(file, `its branch '${site}' is ${text}, that of the first network ${wanted.get(site)}`);
  const [cost, expected] = [other, first].map((model) => totalMacs(stepCost(model).total));
  if (cost !== expected) throw networksDiffer(file, `one step of it takes ${cost} MACs, one of the first network ${expected}`);
}

/** What has to be the same of each branch, in words, by site. */
function branchesOf(model: Model): ReadonlyMap<string, string> {
  const values = new Map(model.graph.marks.map(({ site, value }) => [site, value.type]));
  const { branches: costs } = stepCost(model);
  return new Map(
    ditView(model).branches.map(({ site, kind, block, stream, gated }) => {
      const macs = costs.get(site);
      const facts = [`${kind} of block ${block}`, stream, gated ? "gated" : "not gated", typeText(values.get(site))];
      return [site, [...facts, `${macs ? totalMacs(macs) : 0} MACs`].join(", ")];
    }),
  );
}

function assertSame(file: string, what: string, own: TensorType | undefined, wanted: TensorType | undefined): void {
  if (typeText(own) !== typeText(wanted))
    throw networksDiffer(file, `its ${what} is ${typeText(own)}, that of the first network ${typeText(wanted)}`);
}

function typeText(type: TensorType | undefined): string {
  return `${type?.elem ?? "?"}[${(type?.shape ?? ["?"]).map((dim) => dim ?? "?").join(", ")}]`;
}
