/**
 * Computes values for the rows that are needed of them alone: where few tokens of a value are picked (`reuse`, at cells that are computed for
 * some tokens), the pick moves towards the stream, through everything that treats tokens by themselves. Keys and values of attention stay whole.
 */
import { operands } from "../ir/analysis.js";
import { Builder, elemOf, shapeOf } from "../ir/build.js";
import { constant, isOp, makeNode, makeOp, type Model, type Node, only, type Value } from "../ir/graph.js";
import { isInPart, joinedNeeds, type Need, type Needs, operandNeeds, type Picking, pickingOf, type Rows } from "../ir/rows.js";
import { tensorOf } from "../ir/tensor.js";
import type { TensorType } from "../ir/types.js";
import { isPartial } from "../schedules/index.js";
import type { Pass, PlanContext } from "./pass.js";

export default {
  name: "slice-tokens",
  summary: "compute tokens that are picked, and no others",
  preserves: "rounding",
  // Nobody needs the whole of what is computed in part.
  takesMarks: true,
  run(model, { plan }) {
    return [...plan.cells].some(([, row]) => row.some(isPartial)) ? sliced(model) : model;
  },
} satisfies Pass<PlanContext>;

/** The rows that are wanted of a node's results, and needed of its operands for that. */
interface Decision {
  readonly wanted: readonly (Need | undefined)[];
  readonly needs: Needs;
}

function sliced(model: Model): Model {
  const { graph } = model;
  const decisions = decide(model);
  if (decisions.size === 0) return model;
  const making = new Making();
  for (const node of graph.nodes) {
    const decision = decisions.get(node);
    if (decision === undefined) making.keep(node);
    else if (decision.wanted.some((need) => need !== undefined)) making.make(node, decision);
  }
  const at = (value: Value): Value => making.whole(value);
  const outputs = graph.outputs.map(({ name, value }) => ({ name, value: at(value) }));
  const marks = graph.marks.filter(({ value }) => making.isWhole(value)).map((mark) => ({ ...mark, value: at(mark.value) }));
  return { ...model, graph: { ...graph, nodes: making.nodes, outputs, marks } };
}

/** What is done with nodes that need not be computed whole, or not at all. One backward walk. */
function decide({ graph }: Model): ReadonlyMap<Node, Decision> {
  const needs = new Map<Value, Need>();
  /** Values of which one part is needed, in one place: that alone is no reason to compute them in part, as it may be all of what a part is. */
  const weak = new Set<Value>();
  const need = (value: Value, wanted: Need, isWeak: boolean): void => {
    const known = needs.get(value);
    needs.set(value, known === undefined ? wanted : joinedNeeds(known, wanted));
    if (!isWeak) weak.delete(value);
    else if (known === undefined) weak.add(value);
  };
  const decisions = new Map<Node, Decision>();
  for (const { value } of graph.outputs) need(value, "all", false);
  for (const node of [...graph.nodes].reverse()) {
    const wanted = node.outputs.map((output) => (weak.has(output) ? "all" : needs.get(output)));
    if (wanted.every((one) => one === undefined)) {
      decisions.set(node, { wanted, needs: [] });
      continue;
    }
    const isAsked = isInPart(wanted);
    const found = isAsked || pickingOf(node) ? operandNeeds(node, wanted) : undefined;
    const own = isInPart(found) ? found : undefined;
    if (own) decisions.set(node, { wanted, needs: own });
    else for (const value of operands(node)) need(value, "all", false);
    for (const [i, wantedOf] of (own ?? []).entries()) {
      const value = node.inputs[i];
      if (value && wantedOf !== undefined) need(value, wantedOf, !isAsked && isOp(node, "Slice", "Split"));
    }
  }
  const isRowWise = ({ needs }: Decision): boolean => isInPart(needs);
  return [...decisions.values()].some(isRowWise) ? decisions : new Map<Node, Decision>();
}

/** A value as it was made: whole, or some of its rows. */
interface Made {
  readonly value: Value;
  readonly rows?: Rows | undefined;
}

/** The new nodes, and what they make of old values. */
class Making {
  readonly nodes: Node[] = [];
  private readonly made = new Map<Value, Made>();
  /** Values that number rows, by the order in which they were met. */
  private readonly choices = new Map<Value, number>();
  private readonly picks = new Map<Value, Map<string, Value>>();

  isWhole(value: Value): boolean {
    return this.made.get(value)?.rows === undefined && (this.made.has(value) || value.producer === undefined);
  }

  whole(value: Value): Value {
    const { value: own, rows } = this.madeOf(value);
    if (rows) throw new Error(`internal: '${value.name}' is needed whole and was made in part`);
    return own;
  }

  /** The node with its operands as they are now. */
  keep(node: Node): void {
    const inputs = node.inputs.map((value) => value && this.whole(value));
    const isSame =
      inputs.every((value, i) => value === node.inputs[i]) && operands(node).every((value) => this.madeOf(value).value === value);
    if (isSame) {
      this.nodes.push(node);
      for (const output of node.outputs) this.made.set(output, { value: output });
      return;
    }
    const captures = node.captures.map(({ name, value }) => ({ name, value: this.whole(value) }));
    this.add(node, makeNode({ ...node, inputs, captures }));
  }

  make(node: Node, { wanted, needs }: Decision): void {
    const [source] = node.inputs;
    const picking = pickingOf(node);
    const rows = needs[0];
    if (picking && source && (rows === "all" || rows?.axis === picking.axis) && !this.isAlongOther(wanted, picking.axis)) {
      this.pick(node, source, picking, wanted);
      return;
    }
    const taken = node.inputs.map((value, i) => value && needs[i] && this.taken(value, needs[i], rankFor(node, value)));
    // What is joined may have none of the rows.
    const inputs = isOp(node, "Concat") ? taken.filter((value) => value !== undefined) : taken;
    const outputs = node.outputs.map((output, i) => ({ ...this.typed(output, wanted[i]), extra: output.extra }));
    const [first] = outputs;
    // The shape that is asked for counts rows.
    if (isOp(node, "Reshape", "Expand") && first?.type.shape) {
      const sizes = first.type.shape.map(Number);
      inputs[1] = constant(`${first.name}/shape`, tensorOf("int64", [sizes.length], sizes));
    }
    this.add(node, makeNode({ ...node, inputs, outputs }), wanted);
  }

  private isAlongOther(wanted: Decision["wanted"], axis: number): boolean {
    return wanted.some((need) => need !== undefined && need !== "all" && need.axis !== axis);
  }

  /** Results of a node that picks rows: taken of what was made of its operand. */
  private pick(node: Node, source: Value, { from, axis, chosen }: Picking, wanted: Decision["wanted"]): void {
    const { value, rows } = this.madeOf(source);
    if (!rows && wanted.every((need) => need === "all" || need === undefined)) {
      this.keep(node);
      return;
    }
    for (const [i, output] of node.outputs.entries()) {
      const need = wanted[i];
      if (need === undefined) continue;
      const picked = from[i] ?? [];
      const at = need === "all" ? picked : need.at.map((row) => picked[row] ?? NaN);
      const made = chosen ? value : this.rowsOf(source, { axis, at }, output.name);
      this.made.set(output, { value: made, rows: need === "all" ? undefined : need });
    }
  }

  private madeOf(value: Value): Made {
    return this.made.get(value) ?? { value };
  }

  /** What is needed of an operand, in a value of this rank if it has no batch of its own. */
  private taken(value: Value, need: Need, rank: number): Value {
    if (need === "all") return this.whole(value);
    return need.chosen ? this.chosenOf(value, need, need.chosen, rank) : this.rowsOf(value, need, value.name);
  }

  /** Rows that are chosen in the run: of each row of the batch its own, where a value has these in front. */
  private chosenOf(value: Value, { axis }: Rows, chosen: Value, rank: number): Value {
    const { value: own, rows } = this.madeOf(value);
    if (rows) return own;
    const choice = this.choices.get(chosen) ?? this.choices.size;
    this.choices.set(chosen, choice);
    const key = `${axis}, choice ${choice}, ${rank}`;
    const known = this.picks.get(own) ?? new Map<string, Value>();
    this.picks.set(own, known);
    const there = known.get(key);
    if (there) return there;
    const build = new Builder();
    const made = chosenRows(build, own, axis, this.whole(chosen), rank);
    this.nodes.push(...build.nodes);
    known.set(key, made);
    return made;
  }

  /** These rows of a value, by their numbers in the whole of it. */
  private rowsOf(value: Value, { axis, at }: Rows, name: string): Value {
    const { value: own, rows } = this.madeOf(value);
    if (rows && rows.axis !== axis) throw new Error(`internal: rows of '${value.name}' are needed along another axis`);
    const places = rows && new Map(rows.at.map((row, place) => [row, place]));
    const picked = places ? at.map((row) => places.get(row) ?? NaN) : at;
    const shape = shapeOf(own);
    if (picked.length === shape[axis] && picked.every((row, i) => row === i)) return own;
    const key = `${axis}:${picked.join()}`;
    const known = this.picks.get(own) ?? new Map<string, Value>();
    this.picks.set(own, known);
    const there = known.get(key);
    if (there) return there;
    const indices = constant(`${name}_tokens`, tensorOf("int64", [picked.length], picked));
    const type: TensorType = { elem: elemOf(own), shape: shape.map((size, i) => (i === axis ? picked.length : size)) };
    const { node, value: made } = makeOp(
      "Gather",
      [own, indices],
      { name: `${name}_picked`, type },
      { axis: { kind: "int", value: BigInt(axis) } },
    );
    this.nodes.push(node);
    known.set(key, made);
    return made;
  }

  private typed({ name, type }: Value, need: Need | undefined): { readonly name: string; readonly type: TensorType } {
    if (!type?.shape) throw new Error(`internal: '${name}' has no type`);
    if (need === undefined || need === "all") return { name, type };
    return { name, type: { ...type, shape: type.shape.map((size, i) => (i === need.axis ? need.at.length : size)) } };
  }

  private add(old: Node, node: Node, wanted: Decision["wanted"] = []): void {
    this.nodes.push(node);
    for (const [i, output] of old.outputs.entries()) {
      const need = wanted[i];
      const value = node.outputs[i] ?? only(node);
      this.made.set(output, { value, rows: need === undefined || need === "all" ? undefined : need });
    }
  }
}

/** The number of axes that an operand without a batch of its own has with one: masks of attention are of queries and keys, angles are as they are. */
function rankFor(node: Node, operand: Value): number {
  if (isOp(node, "Attention")) return 4;
  return (isOp(node, "RotaryEmbedding") ? operand : node.outputs[0])?.type?.shape?.length ?? 0;
}

/** The rows along an axis that `chosen`, [batch, rows, 1], numbers; in a value of this rank where it has no batch of its own. */
function chosenRows(build: Builder, value: Value, axis: number, chosen: Value, rank: number): Value {
  const [batch = 1, count = 1] = shapeOf(chosen);
  const shape = shapeOf(value);
  const name = `${value.name}_chosen`;
  if (axis > 0 && shape[0] === batch) {
    const axes = shape.map((_, i) => i);
    const turn = [0, axis, ...axes.filter((i) => i !== 0 && i !== axis)];
    const back = axes.map((i) => turn.indexOf(i));
    const turned = axis === 1 ? value : build.transpose(value, turn, `${name}_turned`);
    const picked = build.gatherChosen(turned, chosen, axis === 1 ? name : `${name}_rows`);
    return axis === 1 ? picked : build.transpose(picked, back, name);
  }
  const numbers = build.reshape(chosen, [batch, count], `${name}_numbers`);
  const behind = shape.slice(axis + 1);
  const type: TensorType = { elem: elemOf(value), shape: [...shape.slice(0, axis), batch, count, ...behind] };
  const picked = build.op("Gather", [value, numbers], `${name}_rows`, type, { axis: { kind: "int", value: BigInt(axis) } });
  const between = new Array<number>(rank - 2 - behind.length).fill(1);
  return build.reshape(picked, [batch, ...between, count, ...behind], name);
}
