const options = {};

export default { name: "own", summary: "", needs: [], options, choose: () => undefined };
