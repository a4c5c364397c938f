/** How work says how far it has come. */

/** Called with how much of `total` is done of the work that `label` names. */
export type Progress = (label: string, done: number, total: number) => void;

export const silent: Progress = () => undefined;
