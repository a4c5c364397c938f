/** A tiny denoising step in ONNX text: one block of attention and feed-forward networks on a latent [b, 6, 4]. */

export interface TinyStep {
  /** Feed-forward networks one after the other. */
  readonly mlps?: number;
  /** Another output before the prediction. */
  readonly aux?: boolean;
  /** Width of the prediction; the latent's is 4. */
  readonly width?: number;
  /** Another time, `r` [b]; the network sees the mean of the two. */
  readonly secondTime?: boolean;
  /** Another condition, `words` [b, 3]. */
  readonly words?: boolean;
}

/** Inputs: `x` [b, 6, 4], `t` [b], `size` [2], which has no batch axis; output: `out`. */
export function tinyStep({ mlps = 1, aux = false, width = 4, secondTime = false, words = false }: TinyStep = {}): string {
  const weight = (name: string, rows: number, columns: number, seed: number): string =>
    `float[${rows},${columns}] ${name} = {${Array.from({ length: rows * columns }, (_, i) => (Math.sin(seed + 1.7 * i) / 2).toFixed(3)).join(", ")}}`;
  const weights = ["q", "k", "v", "o"].map((name, i) => weight(`w_${name}`, 4, 4, i));
  const mlp = Array.from({ length: mlps }, (_, i) => {
    weights.push(weight(`up${i}`, 4, 8, 10 + i), weight(`down${i}`, 8, 4, 20 + i));
    return `a${i} = MatMul(h${i}, up${i})  b${i} = Tanh(a${i})  c${i} = MatMul(b${i}, down${i})  d${i} = Mul(gate, c${i})  h${i + 1} = Add(h${i}, d${i})`;
  });
  weights.push("float[1,4] freq = {0.01, 0.02, 0.03, 0.04}", "int64[1] one = {1}", "float[1] half = {0.5}", weight("w_out", 4, width, 40));
  return `<ir_version: 8, opset_import: ["" : 17]>
    step (float[b,6,4] x, int64[b] t, float[2] size${secondTime ? ", int64[b] r" : ""}${words ? ", float[b,3] words" : ""}) => (${aux ? "float[b,6,4] aux, " : ""}float[b,6,${width}] out) <${weights.join(", ")}> {
      ${secondTime ? "tt = Cast<to = 1>(t)  tr = Cast<to = 1>(r)  both = Add(tt, tr)  tf = Mul(both, half)" : "tf = Cast<to = 1>(t)"}  col = Unsqueeze(tf, one)  angle = Mul(col, freq)  sine = Sin(angle)  gate = Unsqueeze(sine, one)
      q = MatMul(x, w_q)  k = MatMul(x, w_k)  v = MatMul(x, w_v)  kt = Transpose<perm = [0, 2, 1]>(k)
      s = MatMul(q, kt)  p = Softmax<axis = -1>(s)  a = MatMul(p, v)  o = MatMul(a, w_o)  go = Mul(gate, o)  h0 = Add(x, go)
      ${mlp.join("\n      ")}
      ${aux ? `aux = Neg(h${mlps})` : ""}
      sum = ReduceSum<keepdims = 0>(size)  ${words ? "mean = ReduceMean<axes = [1]>(words)  row = Unsqueeze(mean, one)  factor = Mul(row, sum)" : "factor = Identity(sum)"}
      scaled = Mul(h${mlps}, factor)  out = MatMul(scaled, w_out)
    }`;
}
