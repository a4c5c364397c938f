// What the JavaScript clients share, in Node and in browsers: the inputs of a run, its parts, and its result as pixels.

/** Of the element types of a manifest: their names in ONNX Runtime, and the arrays that hold them. Half precision is held as its bits. */
const TYPES = {
  float: ["float32", Float32Array],
  double: ["float64", Float64Array],
  float16: ["float16", Uint16Array],
  int64: ["int64", BigInt64Array],
  int32: ["int32", Int32Array],
  uint8: ["uint8", Uint8Array],
  bool: ["bool", Uint8Array],
};

/**
 * What to tell the runtime to load a model of the artifact with: its manifest's advice. Without the last line, weights are copied into
 * another layout, once for every node that reads them: for every step.
 */
export function sessionOptions({ load }) {
  return {
    graphOptimizationLevel: load.graphOptimizationLevel,
    enableMemPattern: load.enableMemPattern,
    extra: { session: { disable_prepacking: "1" } },
  };
}

/**
 * The inputs of a run by name, as { type, data, dims }: what was given for them (numbers, or an array of their type), else what the manifest
 * says. Throws an error for people if one is missing.
 */
export function feedsOf({ inputs }, given, seed = 0) {
  const unknown = Object.keys(given).find((name) => inputs.every((port) => port.name !== name));
  if (unknown !== undefined) throw new Error(`there is no input '${unknown}', but ${inputs.map(({ name }) => name).join(", ")}`);
  const normal = normals(seed);
  const valueOf = (port) => {
    const { name, elem, shape } = port;
    if (!(elem in TYPES)) throw new Error(`the input '${name}' is of type ${elem}, which is not known here`);
    const [type, Elements] = TYPES[elem];
    const data = new Elements(shape.reduce((product, size) => product * size, 1));
    if (given[name] !== undefined) fill(data, given[name], port);
    else if (port.draw === "unit normal") data.forEach((_, i) => (data[i] = normal()));
    else if (port.default !== undefined) data.fill(port.default);
    else throw new Error(`say what the input '${name}' [${shape.join(", ")}] is`);
    return { type, data, dims: shape };
  };
  return Object.fromEntries(inputs.map((port) => [port.name, valueOf(port)]));
}

/** Fills an array with what is given: all of it, one row for all of the batch, or one number. */
function fill(data, given, { name, shape }) {
  if (![data.length, data.length / (shape[0] ?? 1), 1].includes(given.length)) {
    throw new Error(`the input '${name}' [${shape.join(", ")}] has ${data.length} numbers, and ${given.length} are given`);
  }
  const isSame = given.constructor === data.constructor;
  if (data instanceof Uint16Array && !isSame) throw new Error(`the input '${name}' is in half precision: give it as a .npy file`);
  const convert = isSame ? (value) => value : data instanceof BigInt64Array ? (value) => BigInt(value) : Number;
  data.forEach((_, i) => (data[i] = convert(given[i % given.length])));
}

/** Unit normals from a seed: Box and Muller's transform of the numbers of mulberry32. */
function normals(seed) {
  let state = seed | 0;
  const uniform = () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return (((mixed ^ (mixed >>> 14)) >>> 0) + 0.5) / 2 ** 32;
  };
  return () => Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform());
}

/**
 * Runs an artifact, in its parts if it has them. `open` makes a session of a model of its folder, of which one is in memory at a time;
 * `feeds` are tensors by name. `told` hears after each part of the rows that are done, of how many, and of the latent as it stands.
 * Returns the output that is shown: what a decoder makes of the latent, or the latent. An aborted signal ends it between two parts, as the
 * runtime cannot be interrupted; it throws the signal's reason.
 */
export async function play({ segments = [], inputs, outputs, evaluations }, open, feeds, { told, signal } = {}) {
  const names = (ports) => ports.map(({ name }) => name);
  const whole = { model: "model.onnx", to: evaluations, latent: outputs[0].name, inputs: names(inputs), outputs: names(outputs) };
  const parts = segments.length > 0 ? segments : [whole];
  let values = feeds;
  for (const [i, part] of parts.entries()) {
    signal?.throwIfAborted();
    const session = await open(part.model);
    const own = Object.fromEntries(part.inputs.map((name) => [name, values[name]]));
    values = { ...values, ...(await session.run(own).finally(() => session.release())) };
    told?.(part.to, evaluations, values[part.latent]);
    const needed = new Set([...parts.slice(i + 1).flatMap((later) => later.inputs), ...names(outputs)]);
    values = Object.fromEntries(Object.entries(values).filter(([name]) => needed.has(name)));
  }
  return values[outputs.at(-1).name];
}

/** Whether values of a type and shape can be drawn, as `pixelsOf` does it: two channels are neither grey nor colours. */
export function isPicture(type, dims) {
  return dims.length === 4 && dims[type === "uint8" ? 3 : 1] !== 2;
}

/**
 * Values [batch, channels, height, width], or bytes [batch, height, width, channels], as the RGBA pixels of one picture, the batch side by
 * side. Of four channels, three are shown.
 */
export function pixelsOf({ data, dims }, { display }) {
  const areBytes = data instanceof Uint8Array;
  const [batch, channels, height, width] = areBytes ? [dims[0], dims[3], dims[1], dims[2]] : dims;
  const [black, white] = areBytes ? [0, 255] : (display?.range ?? [-1, 1]);
  const placeOf = (sample, channel, place) =>
    areBytes ? (sample * height * width + place) * channels + channel : (sample * channels + channel) * height * width + place;
  const pixels = new Uint8ClampedArray(batch * height * width * 4);
  let at = 0;
  for (let y = 0; y < height; y++) {
    for (let sample = 0; sample < batch; sample++) {
      for (let x = 0; x < width; x++) {
        for (let colour = 0; colour < 3; colour++) {
          const value = data[placeOf(sample, channels === 1 ? 0 : colour, y * width + x)];
          pixels[at++] = (255 * (value - black)) / (white - black);
        }
        pixels[at++] = 255;
      }
    }
  }
  return { width: batch * width, height, pixels };
}
