/** The Python of this machine, for what is written in Python: `PYTHON` names its interpreter, else `python3` is asked. */
import { execFileSync } from "node:child_process";

export const PYTHON = process.env["PYTHON"] ?? "python3";

/** Why what needs these modules cannot run here, or nothing. */
export function missingModules(...modules: readonly string[]): string | undefined {
  const probe = `import importlib.util as u; print(*(m for m in ${JSON.stringify(modules)} if u.find_spec(m) is None))`;
  try {
    const absent = execFileSync(PYTHON, ["-c", probe], { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] }).trim();
    return absent === "" ? undefined : `${PYTHON} has no ${absent.split(" ").join(", ")}`;
  } catch {
    return `there is no ${PYTHON}`;
  }
}
