/** Random choices that a seed and a number decide. */

export class Random {
  private state: number;

  constructor(seed: number, index: number) {
    this.state = Math.imul(seed ^ 0x9e3779b9, 0x85ebca6b) ^ Math.imul(index + 1, 0xc2b2ae35);
    // Neighbouring numbers must not begin alike.
    for (let i = 0; i < 3; i++) this.bits();
  }

  /** 32 random bits (mulberry32). */
  bits(): number {
    this.state = (this.state + 0x6d2b79f5) | 0;
    let t = Math.imul(this.state ^ (this.state >>> 15), 1 | this.state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return (t ^ (t >>> 14)) >>> 0;
  }

  /** A whole number from 0 to below `n`; 0 if there is none. */
  below(n: number): number {
    return n < 1 ? 0 : Math.floor((this.bits() / 2 ** 32) * n);
  }

  /** True once in `n` times. */
  once(n: number): boolean {
    return this.below(n) === 0;
  }

  pick<T>(choices: readonly T[]): T {
    const choice = choices[this.below(choices.length)];
    if (choice === undefined) throw new Error("there is nothing to pick from");
    return choice;
  }

  /** A number up to about `most` whose logarithm is evenly distributed: mostly small. */
  size(most: number): number {
    return Math.floor(most ** (this.bits() / 2 ** 32));
  }
}
