export default { name: "mine", preserves: "bits", run: (model) => model };
