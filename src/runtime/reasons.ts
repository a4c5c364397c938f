/** What the runtime's messages say, for people: without its source lines and signatures, and with what can be done about it. */

/** A sentence without its full stop, and what to do, where that is known. */
export interface Reason {
  readonly problem: string;
  readonly hint?: string | undefined;
}

type Words = readonly (string | undefined)[];

interface Known {
  readonly pattern: RegExp;
  readonly problem: (...found: Words) => string;
  readonly hint: string | ((...found: Words) => string);
}

const CHECKED = "onnx.checker.check_model(file, full_check=True) says the same of a file that is no valid ONNX: export it again";

const KERNELS =
  "Run it with --device cuda where there is one, or compile it with --precision fp32; or export the model so that the node computes in float32";

/** Messages of ONNX Runtime 1.20 to 1.30, most of them as `onnxruntime/core/graph/graph.cc` and `model.cc` write them. */
const KNOWN: readonly Known[] = [
  {
    pattern: /Unsupported model IR version: (\d+), max supported IR version: (\d+)/,
    problem: (found, most) => `the file has IR version ${found}, and this runtime reads versions up to ${most}`,
    hint: (_, most) => `Save it with a lower one: in Python, model = onnx.load(file); model.ir_version = ${most}; onnx.save(model, file)`,
  },
  {
    pattern: /Opset (\d+) is under development[\s\S]*support for domain (\S+) is till opset (\d+)/,
    problem: (found, domain, most) => `the file has opset ${found} of ${domain}, and this runtime knows versions up to ${most}`,
    hint: (_, _domain, most) => `Export it with opset_version=${most} or lower`,
  },
  {
    pattern: /([\w.]+):(\w+)\([-\d]+\) is not a registered function\/op/,
    problem: (domain, operator) => `it has no operator ${operator} of the domain ${domain}`,
    hint: (domain) => foreignHint(domain ?? ""),
  },
  {
    pattern: /No Op registered for (\w+) with domain_version of (\d+)/,
    problem: (operator, opset) => `opset ${opset} has no operator ${operator}`,
    hint: "Export the model with the opset that has the operator, or with another operator in its place",
  },
  {
    pattern: /Could not find an implementation for (\w+)\((\d+)\) node with name '([^']*)'/,
    problem: (operator, opset, node) =>
      `it has no kernel for ${operator} (opset ${opset}) with the types that node '${node}' has, on this device`,
    hint: KERNELS,
  },
  {
    pattern: /failed to find kernel for (\w+)\((\d+)\) \(node:'([^']*)'[\s\S]*?(?:following type \((.*?)\)|$)/i,
    problem: (operator, opset, node, type) =>
      `it has no kernel for ${operator} (opset ${opset}) at node '${node}'${type === undefined ? "" : ` with the type ${type.replace(/tensor\((\w+)\)?/g, "$1")}`}`,
    hint: KERNELS,
  },
  {
    pattern: /Type 'tensor\((\w+)\)' of input parameter \([^)]*\) of operator \((\w+)\) in node \(([^)]*)\) is invalid/,
    problem: (type, operator, node) => `${operator} does not take ${type} in the file's opset (node '${node}')`,
    hint: "Export the model in float32, or with a higher opset, in which more operators take more types",
  },
  {
    pattern: /bound to different types \(tensor\((\w+)\) and tensor\((\w+)\)\)? in node \(([^)]*)\)/,
    problem: (one, other, node) =>
      `${node === "" ? "a node" : `node '${node}'`} has operands of type ${one} and ${other}, which must be of one type`,
    hint: `A Cast is missing, as converters to half precision leave it; ${CHECKED}`,
  },
  {
    pattern: /Node ?\(([^)]*)\) Op ?\((\w+)\) \[(?:ShapeInferenceError|TypeInferenceError)\] ([^\n]*)/,
    problem: (node, operator, why) => `node '${node}' (${operator}) does not fit its operands: ${lowered(why ?? "")}`,
    hint: `${CHECKED}; where its inputs were given other sizes, it was made for those alone`,
  },
  {
    pattern: /idx=(-?\d+) must be within the inclusive range \[(-?\d+),\s*(-?\d+)\]/,
    problem: (found, low, high) => `a table with entries ${low} to ${high} is asked for entry ${found}`,
    hint: "Give conditions that the network knows: a class, a token or a time is beyond its table (--input, or the recipe)",
  },
  {
    pattern: /bad_alloc|bad allocation|[Oo]ut of memory|Failed to allocate memory|CUDA_ERROR_OUT_OF_MEMORY|OrtAllocator/,
    problem: () => "there is not enough memory",
    hint: "Take a smaller --batch, fewer steps, --form loop or --precision fp16, or a machine with more memory",
  },
];

/** Operators of other programs: the standard's way to say the same. */
function foreignHint(domain: string): string {
  if (/^(trt|tensorrt|com\.nvidia|modelopt)/i.test(domain))
    return "Operators of TensorRT run in TensorRT alone. Quantise with QuantizeLinear and DequantizeLinear of the standard (opset 19 or later has float8), or compile the network as it was before quantisation";
  return "Such an operator runs only where its library is registered. Export the model with operators of the standard; local functions of a model are spelled out by onnx.inliner.inline_local_functions";
}

/** The reason in a message of the runtime. */
export function reasonOf(message: string): Reason {
  for (const { pattern, problem, hint } of KNOWN) {
    const match = pattern.exec(message);
    if (!match) continue;
    const found = match.slice(1);
    return { problem: problem(...found), hint: typeof hint === "string" ? hint : hint(...found) };
  }
  return { problem: readable(message) };
}

/** The message without where in the runtime it was thrown. */
function readable(message: string): string {
  const text = message
    .replace(/^\[ONNXRuntimeError\] : \d+ : \w+ : /, "")
    .replace(/^Load model from .*? failed: ?/, "")
    .replace(/\S*\/onnxruntime\/\S+\.(?:cc|cpp|cu|h):\d+ .*?\([^()]*(?:\([^()]*\)[^()]*)*\)(?: const)?(?: \[with [^\]]*\])? /g, "")
    .replace(/\b(?:This is an invalid model\. |Fatal error: |Exception during initialization: )/g, "")
    .replace(/Non-zero status code returned while running (\w+) node\. Name:'([^']*)' Status Message: /, "node '$2' ($1): ")
    .replace(/\s+/g, " ")
    .trim();
  return lowered(text.replace(/\.$/, ""));
}

/** With a small first letter, where it is that of an ordinary word. */
function lowered(text: string): string {
  return /^[A-Z][a-z]+ /.test(text) ? text.charAt(0).toLowerCase() + text.slice(1) : text;
}
