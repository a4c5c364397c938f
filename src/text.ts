/** Text for people: tables, counts and sizes. */

/** Columns of equal width; the first row is the head. */
export function table(rows: readonly (readonly string[])[]): string {
  const widths = (rows[0] ?? []).map((_, column) => rows.reduce((width, row) => Math.max(width, (row[column] ?? "").length), 0));
  return rows
    .map((row) =>
      row
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join("  ")
        .trimEnd(),
    )
    .join("\n");
}

/** 1 sample, 4 samples. */
export function counted(count: number, what: string): string {
  return `${count} ${what}${count === 1 ? "" : "s"}`;
}

/** 1.26 G. */
export function count(value: number): string {
  return scaled(value, 1000, ["", "k", "M", "G", "T", "P"]);
}

/** 17.8 MB, in powers of 1000. */
export function bytes(value: number): string {
  return `${scaled(value, 1000, ["", "k", "M", "G", "T"])}B`;
}

function scaled(value: number, base: number, units: readonly string[]): string {
  const power = Math.min(units.length - 1, Math.max(0, Math.floor(Math.log(Math.max(1, value)) / Math.log(base))));
  return `${Number((value / base ** power).toPrecision(3))} ${units[power] ?? ""}`;
}
