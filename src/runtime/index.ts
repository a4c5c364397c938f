/** The only access to ONNX Runtime. */
export { provider } from "./device.js";
export { assertDevice, evaluator } from "./evaluator.js";
export { assertKernels } from "./kernels.js";
export { type Reason, reasonOf } from "./reasons.js";
export { Sessions } from "./session-pool.js";
export { AS_WRITTEN, FASTEST, type RuntimeOptions, Session, type SessionOptions, type Tensors } from "./session.js";
