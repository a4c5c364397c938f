#!/usr/bin/env python3
"""Times an artifact beside the PyTorch loop that it came from, plain and under SmoothCache's published helper, on the CPU.

    pip install torch diffusers onnxruntime dit-smoothcache
    npx smoothcc plan DIR --policy DIR/plan.json --format smoothcache -o schedule.json
    python examples/bench-pytorch.py DIR schedule.json MODEL [--runs N] [--threads N] [--label 207]

MODEL is a DiT as diffusers saves it (`transformer/` with its weights), DIR what smoothcc made of its export, schedule.json the
artifact's plan as SmoothCache reads it. All three start from the same noise, and the helper reuses what the artifact reuses: the
last line says how far apart their latents are. SmoothCache (github.com/Roblox/SmoothCache) is the package `dit-smoothcache`;
`smoothcache` is an unrelated one.
"""
import argparse
import contextlib
import importlib.util
import json
import multiprocessing
import os
import pathlib
import statistics
import time

import numpy as np

# Before the first session, or ONNX Runtime keeps a store of what it runs, to send it to its maker.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

PACKAGES = {"torch": "torch", "diffusers": "diffusers", "onnxruntime": "onnxruntime", "SmoothCache": "dit-smoothcache"}


def load_artifact(args, feeds):
    """A function that runs the artifact once."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    # What the optimiser would do is done, and its cost grows with the square of the nodes.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.enable_mem_pattern = False
    options.intra_op_num_threads = args.threads
    session = ort.InferenceSession(str(args.folder / "model.onnx"), options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, feeds)[0]


def load_pytorch(args, feeds):
    """A function that samples once as diffusers' `pipelines/dit/pipeline_dit.py` does, without its VAE; and its network."""
    import diffusers
    import torch

    torch.set_num_threads(args.threads)
    recipe = json.loads((args.folder / "manifest.json").read_text())["recipe"]
    guidance = recipe["guidance"]
    network = diffusers.DiTTransformer2DModel.from_pretrained(args.model, subfolder="transformer").eval()
    scheduler = getattr(diffusers, recipe["scheduler"]["_class_name"]).from_config(recipe["scheduler"])
    noise, labels = (torch.from_numpy(feeds[name]) for name in (recipe["latent"], "class_labels"))
    both = torch.cat([labels, torch.full_like(labels, guidance["uncond"]["class_labels"])])

    @torch.inference_mode()
    def sample():
        scheduler.set_timesteps(recipe["steps"])
        latent = noise * scheduler.init_noise_sigma
        for timestep in scheduler.timesteps:
            scaled = scheduler.scale_model_input(torch.cat([latent, latent]), timestep)
            output = network(scaled, timestep=timestep.expand(len(scaled)), class_labels=both).sample
            # A network that learned the variance gives it as further channels.
            cond, uncond = output[:, : latent.shape[1]].chunk(2)
            latent = scheduler.step(uncond + guidance["scale"] * (cond - uncond), timestep, latent).prev_sample
        return latent.numpy()

    return sample, network


def load_plain(args, feeds):
    return load_pytorch(args, feeds)[0]


def load_smoothcache(args, feeds):
    from diffusers.models.attention import BasicTransformerBlock
    from SmoothCache import SmoothCacheHelper

    sample, network = load_pytorch(args, feeds)
    # `DiffuserCacheHelper` is this with attention alone.
    helper = SmoothCacheHelper(network, BasicTransformerBlock, ["attn1", "ff"], json.loads(args.schedule.read_text()))
    helper.enable()

    def run():
        helper.reset_state()
        # The helper prints a line for every module at every step.
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            return sample()

    return run


def serve(connection, load, args, feeds):
    """The process of one candidate: loads it, then runs it whenever it is told to."""
    run = load(args, feeds)
    while connection.recv():
        started = time.perf_counter()
        latent = run()
        connection.send((1000 * (time.perf_counter() - started), latent))


def feeds_of(args):
    """What the artifact is given: the noise of the seed, and the class."""
    manifest = json.loads((args.folder / "manifest.json").read_text())
    recipe, ports = manifest["recipe"], {port["name"]: port["shape"] for port in manifest["inputs"]}
    plain = {"form", "scale", "order", "uncond"}
    if ports.keys() != {recipe["latent"], "class_labels"} or recipe["guidance"].keys() != plain or "start" in recipe:
        raise SystemExit("This is not DiT as diffusers runs it: a class, guidance at every step in one call, no noise drawn.")
    if "_class_name" not in recipe["scheduler"] or recipe["sampling"]:
        raise SystemExit("The sampler is not one of diffusers' as its scheduler_config.json has it.")
    noise = np.random.default_rng(args.seed).standard_normal(ports[recipe["latent"]], dtype=np.float32)
    return {recipe["latent"]: noise, "class_labels": np.full(ports["class_labels"], args.label)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path, help="an artifact, as smoothcc writes it")
    parser.add_argument("schedule", type=pathlib.Path, help="its plan, as plan --format smoothcache writes it")
    parser.add_argument("model", type=pathlib.Path, help="a folder with transformer/, as diffusers saves it")
    parser.add_argument("--label", type=int, default=0, help="the class")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    args = parser.parse_args()
    absent = [package for module, package in PACKAGES.items() if importlib.util.find_spec(module) is None]
    if absent:
        raise SystemExit(f"Not installed: pip install {' '.join(absent)}")
    feeds = feeds_of(args)

    loads = {"PyTorch": load_plain, "PyTorch, SmoothCache": load_smoothcache, "artifact": load_artifact}
    context = multiprocessing.get_context("spawn")
    workers, times, latents = {}, {name: [] for name in loads}, {}
    for name, load in loads.items():
        workers[name], connection = context.Pipe()
        context.Process(target=serve, args=(connection, load, args, feeds), daemon=True).start()
        connection.close()
    # In turn, so that a machine that changes speed changes all of them; the first run warms up.
    for run in range(args.runs + 1):
        for name, worker in workers.items():
            worker.send(True)
            milliseconds, latents[name] = worker.recv()
            times[name] += [milliseconds] if run > 0 else []
    for worker in workers.values():
        worker.send(False)

    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, median in medians.items():
        print(f"{name:22}{median:10.0f} ms{medians['PyTorch'] / median:8.2f}x")
    for name in ("PyTorch", "PyTorch, SmoothCache"):
        distance = np.linalg.norm(latents["artifact"] - latents[name]) / np.linalg.norm(latents[name])
        print(f"relative L2 of the artifact's latent from that of {name}: {distance:.1e}")


if __name__ == "__main__":
    main()
