/**
 * The names of operators as types, so that a misspelt name does not compile.
 * `isOp` and `isRuntimeOp` (ir/graph.ts) test nodes against them.
 */

/** The operators of the standard's default domain up to opset 24, including removed ones (onnx 1.23.2, `onnx.defs`). */
export const STANDARD_OPERATORS = [
  "Abs", "Acos", "Acosh", "Add", "AffineGrid", "And", "ArgMax", "ArgMin", "Asin", "Asinh", "Atan", "Atanh", "Attention", "AveragePool",
  "BatchNormalization", "Bernoulli", "BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor", "BlackmanWindow", "Cast",
  "CastLike", "Ceil", "Celu", "CenterCropPad", "Clip", "Col2Im", "Compress", "Concat", "ConcatFromSequence", "Constant",
  "ConstantOfShape", "Conv", "ConvInteger", "ConvTranspose", "Cos", "Cosh", "CumSum", "DFT", "DeformConv", "DepthToSpace",
  "DequantizeLinear", "Det", "Div", "Dropout", "DynamicQuantizeLinear", "Einsum", "Elu", "Equal", "Erf", "Exp", "Expand", "EyeLike",
  "Flatten", "Floor", "GRU", "Gather", "GatherElements", "GatherND", "Gelu", "Gemm", "GlobalAveragePool", "GlobalLpPool",
  "GlobalMaxPool", "Greater", "GreaterOrEqual", "GridSample", "GroupNormalization", "HammingWindow", "HannWindow", "HardSigmoid",
  "HardSwish", "Hardmax", "Identity", "If", "ImageDecoder", "InstanceNormalization", "IsInf", "IsNaN", "LRN", "LSTM",
  "LayerNormalization", "LeakyRelu", "Less", "LessOrEqual", "Log", "LogSoftmax", "Loop", "LpNormalization", "LpPool", "MatMul",
  "MatMulInteger", "Max", "MaxPool", "MaxRoiPool", "MaxUnpool", "Mean", "MeanVarianceNormalization", "MelWeightMatrix", "Min", "Mish",
  "Mod", "Mul", "Multinomial", "Neg", "NegativeLogLikelihoodLoss", "NonMaxSuppression", "NonZero", "Not", "OneHot", "Optional",
  "OptionalGetElement", "OptionalHasElement", "Or", "PRelu", "Pad", "Pow", "QLinearConv", "QLinearMatMul", "QuantizeLinear",
  "RMSNormalization", "RNN", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Range", "Reciprocal",
  "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum",
  "ReduceSumSquare", "RegexFullMatch", "Relu", "Reshape", "Resize", "ReverseSequence", "RoiAlign", "RotaryEmbedding", "Round", "STFT",
  "Scan", "Scatter", "ScatterElements", "ScatterND", "Selu", "SequenceAt", "SequenceConstruct", "SequenceEmpty", "SequenceErase",
  "SequenceInsert", "SequenceLength", "SequenceMap", "Shape", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh", "Size", "Slice", "Softmax",
  "SoftmaxCrossEntropyLoss", "Softplus", "Softsign", "SpaceToDepth", "Split", "SplitToSequence", "Sqrt", "Squeeze", "StringConcat",
  "StringNormalizer", "StringSplit", "Sub", "Sum", "Swish", "Tan", "Tanh", "TensorScatter", "TfIdfVectorizer", "ThresholdedRelu",
  "Tile", "TopK", "Transpose", "Trilu", "Unique", "Unsqueeze", "Upsample", "Where", "Xor",
] as const; // prettier-ignore

/** The operators that ONNX Runtime adds to the standard, as far as a network may use them (onnxruntime, docs/ContribOperators.md). */
export const RUNTIME_OPERATORS = [
  "Attention", "BiasAdd", "BiasGelu", "BiasSoftmax", "BiasSplitGelu", "ComplexMul", "ComplexMulConj", "ConvTransposeWithDynamicPads",
  "CropAndResize", "DecoderMaskedMultiHeadAttention", "DecoderMaskedSelfAttention", "DequantizeBFP", "DequantizeLinear",
  "DequantizeWithOrder", "DynamicQuantizeLSTM", "DynamicQuantizeMatMul", "EmbedLayerNormalization", "ExpandDims", "FastGelu",
  "FusedConv", "FusedGemm", "FusedMatMul", "FusedMatMulActivation", "GatedDeltaNet", "GatedRelativePositionBias",
  "GatherBlockQuantized", "GatherND", "Gelu", "GemmFastGelu", "GemmFloat8", "GridSample", "GroupNorm", "GroupQueryAttention",
  "Inverse", "Irfft", "LinearAttention", "LongformerAttention", "MRotaryEmbedding", "MatMulBlockQuantizedFp4Weight",
  "MatMulBlockQuantizedFp8Weight", "MatMulBnb4", "MatMulFpQ4", "MatMulInteger16", "MatMulIntegerToFloat", "MatMulNBits",
  "MoE", "MulInteger", "MultiHeadAttention", "NhwcConv", "NhwcFusedConv",
  "NhwcMaxPool", "PackedAttention", "PackedMultiHeadAttention", "Pad", "PagedAttention", "QAttention", "QEmbedLayerNormalization",
  "QGemm", "QLinearAdd", "QLinearAveragePool", "QLinearConcat", "QLinearConv", "QLinearGlobalAveragePool", "QLinearLeakyRelu",
  "QLinearMul", "QLinearReduceMean", "QLinearSigmoid", "QLinearSoftmax", "QLinearWhere", "QMoE", "QOrderedAttention", "QOrderedGelu",
  "QOrderedLayerNormalization", "QOrderedMatMul", "QuantizeBFP", "QuantizeLinear", "QuantizeWithOrder", "QuickGelu", "Range",
  "ReduceSumInteger", "RelativePositionBias", "RemovePadding", "RestorePadding", "Rfft", "RotaryEmbedding", "ScaledSiLU",
  "SimplifiedLayerNormalization", "SkipGroupNorm", "SkipLayerNormalization", "SkipSimplifiedLayerNormalization", "SparseAttention",
  "SparseToDenseMatMul", "SwiGLU", "TransposeMatMul", "Trilu", "Unique",
] as const; // prettier-ignore

/** The name of an operator of the standard's default domain. */
export type StandardOperator = (typeof STANDARD_OPERATORS)[number];

/** The name of an operator that ONNX Runtime adds to the standard. */
export type RuntimeOperator = (typeof RUNTIME_OPERATORS)[number];

const standard: ReadonlySet<string> = new Set(STANDARD_OPERATORS);

/** Whether a text is the name of an operator of the standard's default domain. */
export function isStandardOperator(text: string): text is StandardOperator {
  return standard.has(text);
}
