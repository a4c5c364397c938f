#!/usr/bin/env python3
"""Runs an artifact with its inputs and outputs bound to the device and, on CUDA, replays the run as one CUDA Graph.

    python examples/cuda-graph.py DIR [--device cuda:0] [--runs N] [--input class_labels=18] [--output result.npy]

Needs numpy and onnxruntime-gpu; with onnxruntime, --device cpu does the same without the graph. The artifact has what capture asks
for: static shapes, no control flow, a kernel for every node (`smoothcc compile` says so). Nobody has measured this on a GPU yet.
"""
import argparse
import json
import os
import pathlib
import time

# Before it is imported, or the runtime keeps a store of what it runs, to send it to its maker.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np
import onnxruntime as ort

DTYPES = {"float": np.float32, "float16": np.float16, "double": np.float64, "int64": np.int64, "int32": np.int32, "bool": np.bool_}


def open_session(model, device, device_id):
    options = ort.SessionOptions()
    # What the optimiser would do is done, and its cost grows with the square of the nodes.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.enable_mem_pattern = False
    if device == "cpu":
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        raise SystemExit("This onnxruntime has no CUDA: install onnxruntime-gpu, or use --device cpu.")
    cuda = {"device_id": device_id, "enable_cuda_graph": "1"}
    session = ort.InferenceSession(model, options, providers=[("CUDAExecutionProvider", cuda)])
    # Without the libraries of CUDA, the runtime falls back to the CPU and only logs it.
    if "CUDAExecutionProvider" not in session.get_providers():
        raise SystemExit("CUDA could not be loaded: onnxruntime's log above says what is missing.")
    return session


def values_of(port, given, generator):
    """What was given for an input; else what the manifest says."""
    name, dtype = port["name"], DTYPES[port["elem"]]
    if name in given:
        text = given[name]
        numbers = np.load(text) if text.endswith(".npy") else np.array([float(part) for part in text.split(",")])
        return np.array(np.broadcast_to(numbers if port["shape"] else numbers.reshape(()), port["shape"]), dtype, order="C")
    if "default" in port:
        return np.full(port["shape"], port["default"], dtype=dtype)
    if port.get("draw") == "unit normal":
        return generator.standard_normal(port["shape"], dtype=np.float32)
    raise SystemExit(f"Say what the input '{name}' {port['shape']} is: --input {name}=VALUE or FILE.npy")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path, help="an artifact, as smoothcc writes it")
    parser.add_argument("--device", default="cuda:0", help="cpu, cuda or cuda:<id>")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--input", action="append", default=[], metavar="NAME=VALUE", help="numbers with commas between, or a .npy file")
    parser.add_argument("--output", help="where the result goes, as .npy")
    args = parser.parse_args()
    device, _, number = args.device.partition(":")
    device_id = int(number or 0)
    manifest = json.loads((args.folder / "manifest.json").read_text())
    given = dict(pair.split("=", 1) for pair in args.input)
    generator = np.random.default_rng(args.seed)

    session = open_session(str(args.folder / "model.onnx"), device, device_id)
    binding = session.io_binding()
    # A graph reads and writes the same addresses at every replay: new values are copied into these.
    inputs = {}
    for port in manifest["inputs"]:
        inputs[port["name"]] = ort.OrtValue.ortvalue_from_numpy(values_of(port, given, generator), device, device_id)
        binding.bind_ortvalue_input(port["name"], inputs[port["name"]])
    outputs = {}
    for port in manifest["outputs"]:
        outputs[port["name"]] = ort.OrtValue.ortvalue_from_shape_and_type(port["shape"], DTYPES[port["elem"]], device, device_id)
        binding.bind_ortvalue_output(port["name"], outputs[port["name"]])

    # The first run warms up and captures; those after it replay.
    drawn = [port for port in manifest["inputs"] if port["name"] not in given]
    for run in range(args.runs + 1):
        for port in drawn if run > 0 else []:
            inputs[port["name"]].update_inplace(values_of(port, given, generator))
        started = time.perf_counter()
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        print(f"{'first' if run == 0 else f'run {run}'}: {1000 * (time.perf_counter() - started):.1f} ms")
    if args.output:
        # The latent comes first, what a decoder makes of it last.
        np.save(args.output, list(outputs.values())[-1].numpy())


if __name__ == "__main__":
    main()
