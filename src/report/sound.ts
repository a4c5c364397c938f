/** Sound as WAV files. */
import { notSound } from "../words/index.js";
import type { Latent } from "./picture.js";

/** Channels that a plain WAV header describes. */
const MOST_CHANNELS = 2;

/**
 * The samples of a batch one after the other as a WAV file of 16 bits at `rate` Hz. `audio` is [batch, channels, samples], or [batch, samples],
 * in [−1, 1]; what is louder is clipped. (RIFF WAVE, IBM and Microsoft, 1991, "Waveform Audio File Format".) Throws NOT_SOUND.
 */
export function sound({ shape, values }: Latent, rate: number): Uint8Array {
  const { batch, channels, length } = soundShape(shape);
  const bytes = 2 * batch * channels * length;
  const file = Buffer.alloc(44 + bytes);
  file.write("RIFF", 0, "latin1");
  file.writeUInt32LE(36 + bytes, 4);
  file.write("WAVEfmt ", 8, "latin1");
  file.writeUInt32LE(16, 16);
  file.writeUInt16LE(1, 20);
  file.writeUInt16LE(channels, 22);
  file.writeUInt32LE(rate, 24);
  file.writeUInt32LE(2 * rate * channels, 28);
  file.writeUInt16LE(2 * channels, 32);
  file.writeUInt16LE(16, 34);
  file.write("data", 36, "latin1");
  file.writeUInt32LE(bytes, 40);
  let at = 44;
  for (let sample = 0; sample < batch; sample++) {
    for (let moment = 0; moment < length; moment++) {
      for (let channel = 0; channel < channels; channel++) {
        const value = values[(sample * channels + channel) * length + moment] ?? 0;
        file.writeInt16LE(Math.round(32767 * Math.min(1, Math.max(-1, value || 0))), at);
        at += 2;
      }
    }
  }
  return file;
}

/** The axes of what can be heard. Throws NOT_SOUND. */
export function soundShape(shape: readonly number[]): { readonly batch: number; readonly channels: number; readonly length: number } {
  const [batch = 0, ...rest] = shape;
  const [channels = 0, length = 0] = rest.length === 1 ? [1, ...rest] : rest;
  if (rest.length < 1 || rest.length > 2) throw notSound(shape, "it does not have three axes");
  if (channels > MOST_CHANNELS) throw notSound(shape, `${channels} channels are neither mono nor stereo`);
  if (shape.includes(0)) throw notSound(shape, "it is empty");
  return { batch, channels, length };
}
