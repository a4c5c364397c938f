/** What a result can be written as for people, by the option of `run` that names the file. */
import type { Recipe } from "../job/index.js";
import { film, filmShape } from "./film.js";
import { type Latent, latentPicture, pictureShape } from "./picture.js";
import { sound, soundShape } from "./sound.js";

/** How results are shown, with its defaults. */
export type Display = Pick<NonNullable<Recipe["display"]>, "range" | "rate">;

export const DEFAULT_DISPLAY: Display = { range: [-1, 1] };

/** Frames and samples a second where the recipe does not say. */
const RATES = { video: 24, audio: 44100 };

export interface Medium {
  /** Throws NOT_A_PICTURE or NOT_SOUND for what cannot be written so. */
  readonly assertFits: (shape: readonly number[], display: Display) => unknown;
  readonly encode: (result: Latent, display: Display) => Uint8Array;
}

export const media = {
  png: {
    assertFits: (shape, { range }) => pictureShape(shape, range),
    encode: (result, { range }) => latentPicture(result, range),
  },
  apng: {
    assertFits: filmShape,
    encode: (result, { range, rate = RATES.video }) => film(result, range, rate),
  },
  wav: {
    assertFits: soundShape,
    encode: (result, { rate = RATES.audio }) => sound(result, rate),
  },
} as const satisfies Readonly<Record<string, Medium>>;
