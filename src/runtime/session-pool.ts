/**
 * A pool of sessions on variants of one exported network.
 * Each has its own copy of the weights, so only as many stay open as fit in memory.
 */
import { totalmem } from "node:os";
import type { Model } from "../../ir/graph.js";
import { weightBytes } from "../../ir/bytes.js";
import { Session, type SessionOptions } from "./session.js";

/** The default limit of weights in open sessions: half of the machine's memory, in bytes. */
const KEPT_BYTES = totalmem() / 2;

export class Sessions {
  /** Least recently used first. */
  private readonly open = new Map<string, { readonly session: Session; readonly bytes: number }>();

  /** `keptBytes`: the limit of weights in open sessions. The session that is in use may exceed it. */
  constructor(
    private readonly options: SessionOptions,
    private readonly keptBytes = KEPT_BYTES,
  ) {}

  /** The session of a key; opens it on the model if necessary. */
  async of(key: string, modelOf: () => Model): Promise<Session> {
    const known = this.open.get(key);
    if (known) {
      this.open.delete(key);
      this.open.set(key, known);
      return known.session;
    }
    const model = modelOf();
    const bytes = weightBytes(model.graph);
    await this.keepWithin(this.keptBytes - bytes);
    const session = await Session.open(model, this.options);
    this.open.set(key, { session, bytes });
    return session;
  }

  async close(): Promise<void> {
    await this.keepWithin(-Infinity);
  }

  /** Closes the least recently used sessions until the others have at most `most` bytes of weights. */
  private async keepWithin(most: number): Promise<void> {
    let held = [...this.open.values()].reduce((sum, { bytes }) => sum + bytes, 0);
    for (const [key, { session, bytes }] of this.open) {
      if (held <= most) return;
      this.open.delete(key);
      held -= bytes;
      await session.close();
    }
  }
}
