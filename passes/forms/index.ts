/** The known output forms. */
import { unknownName } from "../../ir/diagnostics.js";
import { hasMethods, loadFolder } from "../../ir/registry.js";
import type { Form } from "../form.js";

function isForm(candidate: unknown): candidate is Form {
  return hasMethods(candidate, "lower");
}

/** By name, in alphabetical order. */
export const forms: ReadonlyMap<string, Form> = await loadFolder(import.meta.url, isForm);

/** The form that is used unless another is named. */
export const DEFAULT_FORM = "unrolled";

/** Throws UNKNOWN_NAME. */
export function formNamed(name: string): Form {
  const form = forms.get(name);
  if (!form) throw unknownName("form", name, [...forms.keys()]);
  return form;
}
