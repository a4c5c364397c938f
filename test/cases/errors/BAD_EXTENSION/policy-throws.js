// A schema that takes no options, without zod.
const options = { shape: {}, strict: () => ({ safeParse: () => ({ success: true, data: {} }) }) };

export default { name: "own", summary: "", needs: [], options, choose: ({ nothing }) => ({ cells: nothing.length }) };
