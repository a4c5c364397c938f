/** Latents as PNG pictures. The only module that uses the PNG library. */
import { encode } from "fast-png";
import { notAPicture } from "../words/index.js";

/** [batch, channels, height, width] and its elements in row-major order. */
export interface Latent {
  readonly shape: readonly number[];
  readonly values: Float32Array;
}

export interface PictureOptions {
  /** Side of the square of pixels that one element becomes; 1 by default. */
  readonly scale?: number | undefined;
  /** Pictures in a row; the whole batch by default. */
  readonly columns?: number | undefined;
}

/**
 * The batch side by side as one PNG. `range` maps to black and white, values outside are clipped, and NaN is black, as are empty cells of
 * the grid. One channel is grey, three are RGB; of four or more (the latent of a VAE), the first three are shown as RGB. Throws
 * NOT_A_PICTURE.
 */
export function latentPicture(latent: Latent, range: readonly [number, number], options: PictureOptions = {}): Uint8Array {
  const { batch, channels, height, width } = pictureShape(latent.shape, range);
  const [black, white] = range;
  const { scale = 1, columns = batch } = options;
  const across = Math.min(columns, batch);
  const shown = channels === 1 ? 1 : 3;
  const imageWidth = across * width * scale;
  const imageHeight = Math.ceil(batch / across) * height * scale;
  const data = new Uint8ClampedArray(imageWidth * imageHeight * shown);
  for (let y = 0; y < imageHeight; y++) {
    for (let x = 0; x < imageWidth; x++) {
      const row = Math.floor(y / scale);
      const column = Math.floor(x / scale);
      const sample = Math.floor(row / height) * across + Math.floor(column / width);
      if (sample >= batch) continue;
      for (let channel = 0; channel < shown; channel++) {
        const at = ((sample * channels + channel) * height + (row % height)) * width + (column % width);
        data[(y * imageWidth + x) * shown + channel] = (255 * ((latent.values[at] ?? 0) - black)) / (white - black);
      }
    }
  }
  return encode({ width: imageWidth, height: imageHeight, data, channels: shown, depth: 8 });
}

/**
 * |a − b| of two latents of one shape as a PNG, black where they agree; `white` is the largest difference, which is drawn
 * white. Throws NOT_A_PICTURE.
 */
export function differencePicture(
  a: Latent,
  b: Latent,
  options: PictureOptions = {},
): { readonly png: Uint8Array; readonly white: number } {
  if (a.values.length !== b.values.length) throw new Error("internal: a difference of latents of two shapes");
  const values = a.values.map((value, i) => Math.abs(value - (b.values[i] ?? 0)));
  const white = values.reduce((largest, value) => Math.max(largest, value), 0);
  return { png: latentPicture({ shape: a.shape, values }, [0, white || 1], options), white };
}

/** What pixels say of themselves: `Display`. */
interface Layout {
  readonly isChannelsLast: boolean;
}

/** A shape with its channels behind the batch. */
export function channelsFirstShape(shape: readonly number[], { isChannelsLast }: Layout): readonly number[] {
  return isChannelsLast ? [...shape.slice(0, 1), ...shape.slice(-1), ...shape.slice(1, -1)] : shape;
}

/** A result with its channels behind the batch, wherever they are. */
export function channelsFirst({ shape, values }: Latent, layout: Layout): Latent {
  if (!layout.isChannelsLast) return { shape, values };
  const channels = shape.at(-1) ?? 1;
  const area = shape.slice(1, -1).reduce((product, size) => product * size, 1);
  const moved = values.map((_, i) => {
    const [row, channel, place] = [Math.floor(i / (area * channels)), Math.floor(i / area) % channels, i % area];
    return values[(row * area + place) * channels + channel] ?? 0;
  });
  return { shape: channelsFirstShape(shape, layout), values: moved };
}

/** The axes of a latent that can be drawn with this range. Throws NOT_A_PICTURE. */
export function pictureShape(
  shape: readonly number[],
  [black, white]: readonly [number, number],
): { readonly batch: number; readonly channels: number; readonly height: number; readonly width: number } {
  const [batch, channels, height, width, ...rest] = shape;
  if (batch === undefined || channels === undefined || height === undefined || width === undefined || rest.length > 0) {
    throw notAPicture(shape, "it does not have four axes");
  }
  if (channels === 2) throw notAPicture(shape, "two channels are neither grey nor colours");
  if (shape.includes(0)) throw notAPicture(shape, "it is empty");
  if (!(white > black)) throw notAPicture(shape, `its range [${black}, ${white}] is empty`);
  return { batch, channels, height, width };
}
