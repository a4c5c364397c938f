/** The report, charts and pictures. */
export { frontPlot } from "./front-plot.js";
export { displayOf, media } from "./media.js";
export { DRAWING, writeDrawing } from "./raster.js";
export { renderReport, type ReportData } from "./render.js";
export { reportOf } from "./report-data.js";
export { samplerPlot } from "./sampler-plot.js";
export { schedulePlot } from "./schedule-plot.js";
export { drawnCell, scheduleRows } from "./schedule.js";
export { renderVariants, variantsReportOf } from "./variants.js";
