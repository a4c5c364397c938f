/** Pixels as they follow from a decoder's values, before they are rounded, and how far rounded ones are from them. */
import { entryAt } from "../../ir/entries.js";
import { type TensorData, tensorFrom, tensorNumbers } from "../../ir/tensor.js";
import { elementCount } from "../../ir/types.js";

/**
 * Of values [batch, channels, …sizes] the pixels [batch, …sizes, channels], from 0, which is `black`, to 255, as floats
 * (diffusers' `VaeImageProcessor.postprocess`, but for the rounding).
 */
export function unroundedPixels(values: TensorData, [black, white]: readonly [number, number]): TensorData {
  const [batch, channels, ...sizes] = values.shape;
  if (batch === undefined || channels === undefined) throw new Error("internal: pixels of what has no channels");
  const area = elementCount(sizes);
  const numbers = tensorNumbers(values);
  const pixels = Float32Array.from(numbers, (_, i) => {
    const [row, place, channel] = [Math.floor(i / (area * channels)), Math.floor(i / channels) % area, i % channels];
    const share = (entryAt(numbers, (row * channels + channel) * area + place) - black) / (white - black);
    return 255 * Math.min(1, Math.max(0, share));
  });
  return tensorFrom("float", [batch, ...sizes, channels], pixels);
}

/**
 * Relative L2 of what is between pixels and the values that they are rounded from, beyond the half that rounding takes: 0 where each is one of
 * the integers nearest to its value, and never more than the values that were rounded are apart.
 */
export function pixelDistance(pixels: ArrayLike<number>, values: ArrayLike<number>): number {
  let [apart, all] = [0, 0];
  for (let i = 0; i < values.length; i++) {
    const value = values[i] ?? NaN;
    apart += Math.max(0, Math.abs((pixels[i] ?? NaN) - value) - 0.5) ** 2;
    all += value ** 2;
  }
  return apart === 0 ? 0 : Math.sqrt(apart / all);
}
