/** What a result can be written as for people, by the option of `run` that names the file. */
import type { Recipe } from "../job/index.js";
import { film, filmShape } from "./film.js";
import { channelsFirst, channelsFirstShape, type Latent, latentPicture, pictureShape } from "./picture.js";
import { sound, soundShape } from "./sound.js";

/** How results are shown, with its defaults. */
export interface Display extends Pick<NonNullable<Recipe["display"]>, "range" | "rate"> {
  /** Whether channels are the last axis, and not that behind the batch. */
  readonly isChannelsLast: boolean;
}

/** How the results of a recipe are shown. */
export function displayOf({ display, pixels }: Pick<Recipe, "display" | "pixels">): Display {
  const { range = [-1, 1], rate } = display ?? {};
  return { range: pixels ? [0, 255] : range, rate, isChannelsLast: pixels !== undefined };
}

/** Frames and samples a second where the recipe does not say. */
const RATES = { video: 24, audio: 44100 };

export interface Medium {
  /** Throws NOT_A_PICTURE or NOT_SOUND for what cannot be written so. */
  readonly assertFits: (shape: readonly number[], display: Display) => unknown;
  readonly encode: (result: Latent, display: Display) => Uint8Array;
}

export const media = {
  png: {
    assertFits: (shape, display) => pictureShape(channelsFirstShape(shape, display), display.range),
    encode: (result, display) => latentPicture(channelsFirst(result, display), display.range),
  },
  apng: {
    assertFits: filmShape,
    encode: (result, { rate = RATES.video, ...display }) => film(channelsFirst(result, display), display.range, rate),
  },
  wav: {
    assertFits: soundShape,
    encode: (result, { rate = RATES.audio }) => sound(result, rate),
  },
} as const satisfies Readonly<Record<string, Medium>>;
