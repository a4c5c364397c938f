import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    ...{ include: ["test/**/*.test.ts"], testTimeout: 120_000, hookTimeout: 120_000, pool: "forks", maxWorkers: 2 },
    // Some tests ask ONNX Runtime itself, in this language or in Python (src/runtime/telemetry.ts).
    env: { ORT_DISABLE_TELEMETRY: "1" },
  },
});
