throw new Error("no sampler today");
