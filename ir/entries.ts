/** Access to list entries that must exist: a default value in their place would hide a mistake. */

/** The entry at an index that exists. */
export function entryAt<T>(values: readonly T[], i: number): T {
  const value = values[i];
  if (value === undefined) throw new Error(`internal: there is no entry ${i}`);
  return value;
}
