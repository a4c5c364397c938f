/** Protocol-buffer messages as trees of fields, without a schema: what reads as a message is taken as one. */

export interface Field {
  readonly id: number;
  readonly wire: number;
  /** What stands behind the tag (and the length). */
  readonly bytes: Buffer;
  /** The same, if it is a message. */
  readonly fields?: readonly Field[] | undefined;
}

const DEPTH = 12;

/** The fields of a message; undefined for bytes that are none. */
export function fieldsOf(bytes: Buffer, depth = 0): Field[] | undefined {
  const fields: Field[] = [];
  let at = 0;
  const varint = (): number | undefined => {
    let value = 0;
    for (let scale = 1; scale < 2 ** 70; scale *= 128) {
      const byte = bytes[at++];
      if (byte === undefined) return undefined;
      value += (byte & 127) * scale;
      if (byte < 128) return value;
    }
    return undefined;
  };
  while (at < bytes.length) {
    const tag = varint();
    if (tag === undefined || tag < 8 || tag > 0xffffffff) return undefined;
    const [id, wire] = [Math.floor(tag / 8), tag % 8];
    let start = at;
    if (wire === 2) {
      const length = varint();
      if (length === undefined || at + length > bytes.length) return undefined;
      start = at;
      at += length;
    } else if (wire === 0) {
      if (varint() === undefined) return undefined;
    } else if (wire === 1) at += 8;
    else if (wire === 5) at += 4;
    else return undefined;
    if (at > bytes.length) return undefined;
    const content = bytes.subarray(start, at);
    const inner = wire === 2 && content.length > 0 && depth < DEPTH ? fieldsOf(content, depth + 1) : undefined;
    fields.push({ id, wire, bytes: content, fields: inner });
  }
  return fields;
}

export function bytesOf(fields: readonly Field[]): Buffer {
  return Buffer.concat(
    fields.flatMap(({ id, wire, bytes }) => [varintBytes(id * 8 + wire), ...(wire === 2 ? [varintBytes(bytes.length)] : []), bytes]),
  );
}

export function varintBytes(value: number): Buffer {
  const bytes: number[] = [];
  for (let rest = value; ; rest = Math.floor(rest / 128)) {
    if (rest < 128) return Buffer.from([...bytes, rest]);
    bytes.push((rest % 128) | 128);
  }
}
