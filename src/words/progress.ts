/** Progress reports. */

/** Called with the amount of work done, of `total`, for the task `label`. */
export type Progress = (label: string, done: number, total: number) => void;

export const silent: Progress = () => undefined;
