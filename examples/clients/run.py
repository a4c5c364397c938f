#!/usr/bin/env python3
"""Runs an artifact with ONNX Runtime, its inputs and outputs bound to the device.

    python run.py DIR --input class_labels=18 --output picture.png [--seed 1] [--device cuda]

Needs numpy and onnxruntime; onnxruntime-gpu for --device cuda. ../cuda-graph.py replays the run as one CUDA Graph.
"""
from artifact import options, prepare, write  # before onnxruntime, which it keeps from telling its maker what it runs

import onnxruntime as ort

LEVELS = {"disabled": "ORT_DISABLE_ALL", "basic": "ORT_ENABLE_BASIC", "extended": "ORT_ENABLE_EXTENDED", "all": "ORT_ENABLE_ALL"}


def open_session(model, load, provider="CPUExecutionProvider", device_id=0):
    """A session on a model of the artifact, loaded as its manifest advises."""
    settings = ort.SessionOptions()
    settings.graph_optimization_level = getattr(ort.GraphOptimizationLevel, LEVELS[load["graphOptimizationLevel"]])
    settings.enable_mem_pattern = load["enableMemPattern"]
    # Else the runtime copies each weight into another layout, once for every node that reads it: for every step.
    settings.add_session_config_entry("session.disable_prepacking", "1")
    session = ort.InferenceSession(str(model), settings, providers=[(provider, {"device_id": device_id})])
    # The runtime falls back to the CPU and only logs it.
    if provider not in session.get_providers():
        raise SystemExit(f"This onnxruntime could not load the {provider}.")
    return session


def main():
    parser = options(__doc__)
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:<id>")
    args = parser.parse_args()
    manifest, feeds = prepare(args)
    device, _, number = args.device.partition(":")
    where = (device, int(number or 0))
    session = open_session(args.folder / "model.onnx", manifest["load"], f"{device.upper()}ExecutionProvider", where[1])
    binding = session.io_binding()
    for name, array in feeds.items():
        binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(array, *where))
    for port in manifest["outputs"]:
        binding.bind_output(port["name"], *where)
    session.run_with_iobinding(binding)
    # The latent comes first, what a decoder makes of it last.
    write(args.output, binding.get_outputs()[-1].numpy(), manifest)


if __name__ == "__main__":
    main()
