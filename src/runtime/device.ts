/** Names of devices. */
import { unknownDevice } from "../words/index.js";

/** Throws UNKNOWN_DEVICE. */
export function provider(device: string): string | { readonly name: string; readonly deviceId: number } {
  const match = /^(cpu)$|^cuda(?::(\d+))?$/.exec(device);
  if (!match) throw unknownDevice(device);
  return match[1] !== undefined ? "cpu" : { name: "cuda", deviceId: Number(match[2] ?? 0) };
}
