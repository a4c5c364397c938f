/** A tiny denoising step in ONNX text: one block of attention and feed-forward networks on a latent [b, 6, 4]. */

export interface TinyStep {
  /** Feed-forward networks one after the other. */
  readonly mlps?: number;
  /** Another output before the prediction. */
  readonly aux?: boolean;
  /** Width of the prediction; the latent's is 4. */
  readonly width?: number;
  /** A class of each row, of five: an input `label` [b]. */
  readonly label?: boolean;
  /** Whether the gate of the branches, which knows time and conditions, is also added to what attention sees. */
  readonly shift?: boolean;
  /** An embedded guidance scale of each row: an input `guidance` [b]. */
  readonly guidance?: boolean;
  /** Another time of each row, of which the network sees how far it lies behind: an input `r` [b]. */
  readonly secondTime?: boolean;
  /** Three numbers of each row, of which the network sees the mean: an input `words` [b, 3]. */
  readonly words?: boolean;
  /** The operator between the weights of a feed-forward network; Tanh if left out. */
  readonly activation?: string;
}

/** Inputs: `x` [b, 6, 4], `t` [b], `size` [2], which has no batch axis; output: `out`. */
export function tinyStep(step: TinyStep = {}): string {
  const {
    mlps = 1,
    aux = false,
    width = 4,
    label = false,
    shift = false,
    guidance = false,
    secondTime = false,
    words = false,
    activation = "Tanh",
  } = step;
  const weight = (name: string, rows: number, columns: number, seed: number): string =>
    `float[${rows},${columns}] ${name} = {${Array.from({ length: rows * columns }, (_, i) => (Math.sin(seed + 1.7 * i) / 2).toFixed(3)).join(", ")}}`;
  const weights = ["q", "k", "v", "o"].map((name, i) => weight(`w_${name}`, 4, 4, i));
  const mlp = Array.from({ length: mlps }, (_, i) => {
    weights.push(weight(`up${i}`, 4, 8, 10 + i), weight(`down${i}`, 8, 4, 20 + i));
    return `a${i} = MatMul(h${i}, up${i})  b${i} = ${activation}(a${i})  c${i} = MatMul(b${i}, down${i})  d${i} = Mul(gate, c${i})  h${i + 1} = Add(h${i}, d${i})`;
  });
  weights.push("float[1,4] freq = {0.01, 0.02, 0.03, 0.04}", "int64[1] one = {1}", weight("w_out", 4, width, 40));
  const embedded = [
    "tf",
    ...(label ? ["shade"] : []),
    ...(guidance ? ["guidance"] : []),
    ...(secondTime ? ["lag"] : []),
    ...(words ? ["mean"] : []),
  ];
  const inputs = [
    "float[b,6,4] x, int64[b] t, float[2] size",
    ...(label ? ["int64[b] label"] : []),
    ...(guidance ? ["float[b] guidance"] : []),
    ...(secondTime ? ["int64[b] r"] : []),
    ...(words ? ["float[b,3] words"] : []),
  ];
  if (label) weights.push("float[5] shades = {10, 40, 90, 160, 250}");
  const seen = shift ? "seen" : "x";
  const time = embedded.slice(1).map((name, i) => `e${i + 1} = Add(e${i}, ${name})`);
  return `<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>
    step (${inputs.join(", ")}) => (${aux ? "float[b,6,4] aux, " : ""}float[b,6,${width}] out) <${weights.join(", ")}> {
      e0 = Cast<to = 1>(t)  ${label ? "shade = Gather(shades, label)  " : ""}${secondTime ? "tr = Cast<to = 1>(r)  lag = Sub(e0, tr)  " : ""}${words ? "mean = ReduceMean<axes = [1], keepdims = 0>(words)  " : ""}
      ${time.join("  ")}
      col = Unsqueeze(e${time.length}, one)  angle = Mul(col, freq)  sine = Sin(angle)  gate = Unsqueeze(sine, one)
      ${shift ? "seen = Add(x, gate)" : ""}
      q = MatMul(${seen}, w_q)  k = MatMul(${seen}, w_k)  v = MatMul(${seen}, w_v)  kt = Transpose<perm = [0, 2, 1]>(k)
      s = MatMul(q, kt)  p = Softmax<axis = -1>(s)  a = MatMul(p, v)  o = MatMul(a, w_o)  go = Mul(gate, o)  h0 = Add(x, go)
      ${mlp.join("\n      ")}
      ${aux ? `aux = Neg(h${mlps})` : ""}
      sum = ReduceSum<keepdims = 0>(size)  scaled = Mul(h${mlps}, sum)  out = MatMul(scaled, w_out)
    }`;
}
