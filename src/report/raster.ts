/** Writes SVG drawings as files. The only module that uses the rasteriser and its font. */
import { createRequire } from "node:module";
import { Resvg } from "@resvg/resvg-js";
import { writeWhole } from "../files/index.js";

/** The font of the drawings. It comes as a package, as texts would be missing on a machine without fonts. */
const FONTS = ["400Regular", "600SemiBold"].map((weight) => `@expo-google-fonts/roboto/${weight}/Roboto_${weight}.ttf`);

/** Pixels per unit of the drawing. */
const SCALE = 2;

/** The possible extensions of a drawing's file. */
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
