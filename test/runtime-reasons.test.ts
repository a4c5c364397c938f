/** Messages of the runtime, as it gave them for broken files, in words for people. */
import { describe, expect, it } from "vitest";
import { reasonOf } from "../src/runtime/index.js";

const SOURCE = "/onnxruntime_src/onnxruntime/core";

/** Recorded from onnxruntime-node 1.30 and onnxruntime 1.32 (Python). */
const MESSAGES: readonly (readonly [message: string, problem: string, hint: string | undefined])[] = [
  [
    `Load model from m.onnx failed:${SOURCE}/graph/model.cc:202 onnxruntime::Model::Model(onnx::ModelProto&&, const onnxruntime::PathString&, const onnxruntime::IOnnxRuntimeOpSchemaRegistryList*, const onnxruntime::logging::Logger&, const onnxruntime::ModelOptions&) Unsupported model IR version: 14, max supported IR version: 13\n`,
    "the file has IR version 14, and this runtime reads versions up to 13",
    "model.ir_version = 13",
  ],
  [
    `Load model from m.onnx failed:${SOURCE}/graph/model_load_utils.h:46 void onnxruntime::model_load_utils::ValidateOpsetForDomain(const std::unordered_map<std::__cxx11::basic_string<char>, int>&, const onnxruntime::logging::Logger&, bool, const std::string&, int) ONNX Runtime only *guarantees* support for models stamped with official released onnx opset versions. Opset 40 is under development and support for this is limited. The operator schemas and or other functionality may change before next ONNX release and in this case ONNX Runtime will not guarantee backward compatibility. Current official support for domain ai.onnx is till opset 26.\n`,
    "the file has opset 40 of ai.onnx, and this runtime knows versions up to 26",
    "opset_version=26 or lower",
  ],
  ["Load model from m.onnx failed:Fatal error: trt:TRT_FP8QuantizeLinear(-1) is not a registered function/op", "it has no operator TRT_FP8QuantizeLinear of the domain trt", "DequantizeLinear of the standard"], // prettier-ignore
  ["Fatal error: com.other:Fold(-1) is not a registered function/op", "it has no operator Fold of the domain com.other", "inline_local_functions"], // prettier-ignore
  [
    'This is an invalid model. In Node, ("/blocks.0/Erf", NoSuchOp, "", -1) : ("a": tensor(float),) -> ("b",) , Error No Op registered for NoSuchOp with domain_version of 17',
    "opset 17 has no operator NoSuchOp",
    "with the opset that has the operator",
  ],
  [
    "Could not find an implementation for LeakyRelu(16) node with name 'a_leaky'",
    "it has no kernel for LeakyRelu (opset 16) with the types that node 'a_leaky' has, on this device",
    "--device cuda",
  ],
  [
    "failed to find kernel for Reshape(19) (node:'flat' ep:'CPUExecutionProvider'). Op with name (flat) domain () and type (Reshape) kernel is not supported in CPUExecutionProvider. Encountered following errors: ( Version mismatch. node_version: 19 kernel start version: 1 kernel_end_version: 4 Kernel found kernel in the supported version range (node_version: 19). However the types are incompatible. This op has been implemented only for the following types (tensor(float),tensor(double),), but the node in the model has the following type (tensor(float8e4m3fn)) Version mismatch. node_version: 19 kernel start version: 21 kernel_end_version: 22 ).",
    "it has no kernel for Reshape (opset 19) at node 'flat' with the type float8e4m3fn",
    "--device cuda",
  ],
  [
    "This is an invalid model. Type Error: Type 'tensor(bfloat16)' of input parameter (/Mul_output_0) of operator (Sin) in node (/Sin) is invalid.",
    "Sin does not take bfloat16 in the file's opset (node '/Sin')",
    "higher opset",
  ],
  [
    "Type Error: Type parameter (T) of Optype (Add) bound to different types (tensor(double) and tensor(float) in node (mixed).",
    "node 'mixed' has operands of type double and float, which must be of one type",
    "A Cast is missing",
  ],
  ["Node (misfit) Op (Add) [ShapeInferenceError] Incompatible dimensions", "node 'misfit' (Add) does not fit its operands: incompatible dimensions", "full_check"], // prettier-ignore
  [
    `Non-zero status code returned while running Gather node. Name:'g' Status Message: ${SOURCE}/providers/cpu/tensor/gather.cc:173 onnxruntime::common::Status onnxruntime::GatherCopyData(int64_t) indices element out of data bounds, idx=99 must be within the inclusive range [-10,9]`,
    "a table with entries -10 to 9 is asked for entry 99",
    "--input",
  ],
  ["Exception during initialization: std::bad_alloc", "there is not enough memory", "--batch"],
  // What is not known is said without its source line, and with no advice.
  [
    `[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running Reshape node. Name:'r' Status Message: ${SOURCE}/providers/cpu/tensor/reshape_helper.h:47 onnxruntime::ReshapeHelper::ReshapeHelper(const onnxruntime::TensorShape&, onnxruntime::TensorShapeVector&, bool) The input tensor cannot be reshaped to the requested shape.`,
    "node 'r' (Reshape): The input tensor cannot be reshaped to the requested shape",
    undefined,
  ],
];

describe("a message of the runtime", () => {
  it.each(MESSAGES)("is put into words: %.60s", (message, problem, hint) => {
    const reason = reasonOf(message);
    expect(reason.problem).toBe(problem);
    if (hint === undefined) expect(reason.hint).toBeUndefined();
    else expect(reason.hint).toContain(hint);
    for (const text of [reason.problem, reason.hint ?? ""]) expect(text).not.toMatch(/onnxruntime_src|::|\.cc|\.$/);
  });
});
