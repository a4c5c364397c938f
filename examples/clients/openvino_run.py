#!/usr/bin/env python3
"""Runs an artifact with OpenVINO, which reads model.onnx as it is.

    python openvino_run.py DIR --input class_labels=18 --output picture.png [--seed 1] [--device GPU]

Needs numpy and openvino. Prints what reading, compiling and running took.
"""
import sys
import time

# Else OpenVINO tells its maker that it was imported, without asking.
sys.modules["openvino_telemetry"] = None

import openvino as ov

from artifact import options, prepare, write


def main():
    parser = options(__doc__)
    parser.add_argument("--device", default="CPU", help="CPU, GPU, NPU or AUTO")
    args = parser.parse_args()
    manifest, feeds = prepare(args)
    core = ov.Core()
    times = [time.perf_counter()]
    model = core.read_model(args.folder / "model.onnx")
    times.append(time.perf_counter())
    # Without this, OpenVINO computes in bfloat16 or float16 where the processor can.
    compiled = core.compile_model(model, args.device, {"INFERENCE_PRECISION_HINT": "f32"})
    times.append(time.perf_counter())
    results = compiled(feeds)
    times.append(time.perf_counter())
    write(args.output, results[compiled.outputs[-1]], manifest)
    spans = [end - start for start, end in zip(times, times[1:])]
    print(", ".join(f"{what} {span:.2f} s" for what, span in zip(("read", "compiled", "ran"), spans)))


if __name__ == "__main__":
    main()
