/** The unrolled run: what does not depend on the latent stands in front of the steps, once, and nodes are called by step and module. */
import { describe, expect, it } from "vitest";
import { dependence } from "../ir/analysis.js";
import { LATENT } from "../ir/dit.js";
import { ditView, type Model, type Node } from "../ir/graph.js";
import { isElementwise } from "../ir/ops.js";
import { runPasses } from "../passes/pass.js";
import { RUN_PASSES, STEP_PASSES } from "../passes/index.js";
import { type Fixture, fixtures } from "./support/fixtures.js";
import { type Form, nullClassOf, openFixture } from "./support/jobs.js";

/** The run, every branch computed at every step. */
async function unrolled(fixture: Fixture, form: Form, steps: number): Promise<Model> {
  const job = await openFixture(fixture, form, { steps });
  return runPasses(job.model, [...STEP_PASSES, ...RUN_PASSES], { ...job.questions, run: job.run });
}

/** The work in front of the steps: all nodes but elementwise ones, of which a network whose time has one row for many has one a step. */
function hoisted(model: Model): readonly Node[] {
  const { graph } = model;
  const { latent } = ditView(model);
  const drawn = graph.inputs.filter(({ name }) => name === latent || name === "noise");
  const dependsOn = dependence(graph, new Map(drawn.map((input) => [input, LATENT])));
  return graph.nodes.filter((node) => dependsOn(node.outputs[0]) === 0 && !isElementwise(node));
}

const forms = (fixture: Fixture): readonly Form[] => (nullClassOf(fixture) === undefined ? ["none"] : ["none", "batched"]);

describe.each(fixtures.flatMap((fixture) => forms(fixture).map((form) => ({ ...fixture, fixture, form }))))(
  "$name, guidance $form",
  ({ fixture, form }) => {
    it("does as much in front of six steps as of three", async () => {
      const [few, many] = await Promise.all([unrolled(fixture, form, 3), unrolled(fixture, form, 6)]);
      const names = (nodes: readonly Node[]): readonly string[] => nodes.map(({ opType, name }) => `${opType} ${name}`);
      expect(names(hoisted(many))).toEqual(names(hoisted(few)));
    });
  },
);

it.each(fixtures.filter(({ name }) => /^(dit|flux|wan)\//.test(name)))("calls nodes by their step and module: $name", async (fixture) => {
  const { graph } = await unrolled(fixture, "none", 2);
  // TorchScript has slashes between the modules of a path.
  const names = graph.nodes.filter(({ name }) => name.startsWith("step1/")).map(({ name }) => `${name.replaceAll("/", ".")}.`);
  for (const { module } of fixture.branches) {
    expect(
      names.some((name) => name.includes(`.${module}.`)),
      module,
    ).toBe(true);
  }
});
