/** SVG drawings as files; the only place that knows the rasteriser and its font. */
import { createRequire } from "node:module";
import { Resvg } from "@resvg/resvg-js";
import { writeWhole } from "../files/index.js";

/** The drawings' fonts name this one. A bare machine has none, and texts would be left out: so it comes as a package. */
const FONTS = ["400Regular", "600SemiBold"].map((weight) => `@expo-google-fonts/roboto/${weight}/Roboto_${weight}.ttf`);

/** Pixels a unit of the drawing. */
const SCALE = 2;

/** What the name of a file for a drawing ends in. */
export const DRAWING = /\.(svg|png)$/;

/** Writes a drawing as SVG, or as PNG if the file's name ends so. Throws what `writeWhole` throws. */
export async function writeDrawing(file: string, svg: string, force: boolean): Promise<void> {
  await writeWhole(file, file.endsWith(".png") ? rasterise(svg) : svg, force);
}

/** The drawing as PNG, the same bytes on every machine. */
export function rasterise(svg: string): Uint8Array {
  const { resolve } = createRequire(import.meta.url);
  const font = { loadSystemFonts: false, fontFiles: FONTS.map((file) => resolve(file)), defaultFontFamily: "Roboto" };
  return new Resvg(svg, { font, fitTo: { mode: "zoom", value: SCALE } }).render().asPng();
}
