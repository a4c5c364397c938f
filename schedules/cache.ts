/** Caches: the values of a network that are kept from step to step, and their names in texts and files. */
import type { Branch, CacheKey, Half } from "../ir/dit.js";
import type { SiteTokens } from "../ir/site-tokens.js";

/** A cache of a branch. In a call that sees both halves of the guidance it holds both. */
export interface CachedBranch extends Branch, CacheKey {
  readonly halves: readonly Half[];
  /** `attn-3`, or `attn-3@uncond` in a call of the unconditional half alone. The name in traces and messages, and a key of plan files. */
  readonly name: string;
  /** Absent where the branch has no axis of tokens. */
  readonly tokens?: SiteTokens | undefined;
}

/** The half that identifies the caches of a call: `cond` if the call sees it. */
export function halfOf(halves: readonly Half[]): Half {
  return halves.includes("cond") ? "cond" : "uncond";
}

export function cacheName({ site, half }: CacheKey): string {
  return half === "cond" ? site : `${site}@${half}`;
}

/** The cache with this name (`cacheName` backwards). */
export function cacheNamed(name: string): CacheKey {
  const site = name.replace(/@uncond$/, "");
  return { site, half: site === name ? "cond" : "uncond" };
}

/** The plan keys that only apply to this branch: in all calls, or in one. */
export function keysOfSite(site: string): readonly string[] {
  return [site, `${site}@cond`, `${site}@uncond`];
}

/** The caches of a guided row, call by call. */
export function cachesOf<B extends Branch>(branches: readonly B[], calls: readonly (readonly Half[])[]): readonly (B & CachedBranch)[] {
  return calls.flatMap((halves) =>
    branches.map((branch) => {
      const key = { site: branch.site, half: halfOf(halves) };
      return { ...branch, ...key, halves, name: cacheName(key) };
    }),
  );
}

/** A map from caches to values. Keys are equal if branch and half are. */
export class CacheMap<V> implements Iterable<readonly [CacheKey, V]> {
  private readonly entries = new Map<string, readonly [CacheKey, V]>();

  constructor(entries: Iterable<readonly [CacheKey, V]> = []) {
    for (const [key, value] of entries) this.set(key, value);
  }

  get(key: CacheKey): V | undefined {
    return this.entries.get(cacheName(key))?.[1];
  }

  set({ site, half }: CacheKey, value: V): this {
    this.entries.set(cacheName({ site, half }), [{ site, half }, value]);
    return this;
  }

  /** By names. */
  named(): ReadonlyMap<string, V> {
    return new Map(Array.from(this.entries, ([name, [, value]]) => [name, value]));
  }

  get size(): number {
    return this.entries.size;
  }

  [Symbol.iterator](): Iterator<readonly [CacheKey, V]> {
    return this.entries.values();
  }
}
