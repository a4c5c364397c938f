export const sampler = {};
