/** The fields of an ONNX file as the wire format has them, known or not: a reader that knows no schema but which fields are messages. */

interface Messages {
  readonly [field: number]: Messages;
}

const LEAF: Messages = {};
const ENTRY: Messages = LEAF;
const VALUE_INFO: Messages = { 4: ENTRY };
const TENSOR: Messages = { 16: ENTRY };
const NODE: Messages = { 5: { 5: TENSOR }, 9: ENTRY };

/** Which fields of ModelProto are messages, and so on down: those in which the order of fields may change. */
const MODEL: Messages = {
  7: { 1: NODE, 5: TENSOR, 11: VALUE_INFO, 12: VALUE_INFO, 13: VALUE_INFO, 15: { 1: TENSOR, 2: TENSOR } },
  8: LEAF,
  14: ENTRY,
};

/** Path, wire type and payload of every field, sorted; empty strings are what absent ones are, and left out. */
export function canonicalFields(model: Uint8Array): string[] {
  return fields(Buffer.from(model), MODEL);
}

function fields(bytes: Buffer, messages: Messages): string[] {
  const found: string[] = [];
  let at = 0;
  const varint = (): bigint => {
    let value = 0n;
    for (let shift = 0n; ; shift += 7n) {
      const byte = bytes[at++];
      if (byte === undefined) throw new Error("cut off");
      value |= BigInt(byte & 127) << shift;
      if (byte < 128) return value;
    }
  };
  while (at < bytes.length) {
    const tag = Number(varint());
    const id = tag >> 3;
    const start = at;
    switch (tag & 7) {
      case 0:
        found.push(`${id} varint ${varint()}`);
        break;
      case 1:
        at += 8;
        found.push(`${id} fixed64 ${bytes.toString("hex", start, at)}`);
        break;
      case 5:
        at += 4;
        found.push(`${id} fixed32 ${bytes.toString("hex", start, at)}`);
        break;
      case 2: {
        const length = Number(varint());
        const payload = bytes.subarray(at, at + length);
        if (payload.length < length) throw new Error("cut off");
        at += length;
        const inner = messages[id];
        if (inner)
          found.push(...(id === 7 && messages === MODEL ? fields(payload, inner).map((field) => `7/${field}`) : [`${id} { ${fields(payload, inner).join("; ")} }`])); // prettier-ignore
        else if (length > 0) found.push(`${id} bytes ${payload.toString("base64")}`);
        break;
      }
      default:
        throw new Error(`wire type ${tag & 7}`);
    }
  }
  return found.sort();
}
