/** Sessions of one exported network, parts of it cut off, each with the weights for itself: kept open as long as there is memory. */
import { totalmem } from "node:os";
import type { Model } from "../../ir/graph.js";
import { weightBytes } from "../../ir/bytes.js";
import { type RuntimeOptions, Session } from "./session.js";

/** Bytes of weights that are kept: half of the machine's memory. */
const KEPT_BYTES = totalmem() / 2;

export class Sessions {
  /** Those that were used last stand last. */
  private readonly open = new Map<string, { readonly session: Session; readonly bytes: number }>();

  /** The one that is asked for is kept in any case. */
  constructor(
    private readonly options: RuntimeOptions = {},
    private readonly keptBytes = KEPT_BYTES,
  ) {}

  /** The session of a key, which is opened on the model if it is not. */
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
    const session = await Session.open(model, { ...this.options, optimise: "all" });
    this.open.set(key, { session, bytes });
    return session;
  }

  async close(): Promise<void> {
    await this.keepWithin(-Infinity);
  }

  /** Closes those that have not been used for longest until the others have so many bytes. */
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
