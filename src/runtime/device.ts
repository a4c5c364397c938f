/** Names of devices, and the float types that they have kernels for. */
import { noKernels, unknownDevice } from "../words/index.js";
import type { FloatType } from "../../ir/types.js";

/** Throws UNKNOWN_DEVICE. */
export function provider(device: string): string | { readonly name: string; readonly deviceId: number } {
  const match = /^(cpu)$|^cuda(?::(\d+))?$/.exec(device);
  if (!match) throw unknownDevice(device);
  return match[1] !== undefined ? "cpu" : { name: "cuda", deviceId: Number(match[2] ?? 0) };
}

/** Throws NO_KERNELS if a device has none for the float type that a network computes in. */
export function assertKernels(type: FloatType | undefined, device = "cpu"): void {
  if (type === "bfloat16" && device === "cpu") throw noKernels(type, device);
}
