"""Exports the denoising step of a diffusion transformer to ONNX, in a folder that `smoothcc build` takes.

    python export.py --arch dit --model facebook/DiT-XL-2-256 -o dit-xl
    python export.py --arch dit --random -o dit-toy            # the same structure at toy size, nothing downloaded
"""
import argparse
import json
import os
from types import SimpleNamespace

import diffusers
import torch

from recipes import recipes
from workarounds import exportable

# Before the first session, or ONNX Runtime keeps a store of what it runs, to send it to its maker.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"


class Step(torch.nn.Module):
    """The model with its inputs by position and one output: what both exporters want."""

    def __init__(self, model, names, fixed):
        super().__init__()
        self.model, self.names, self.fixed = model, names, fixed

    def forward(self, *values):
        return self.model(**dict(zip(self.names, values)), **self.fixed, return_dict=False)[0]


def randomise(model, seed=0):
    """Weights of ordinary size, none of them zero: released models start with gates and outputs of zero, which would
    make every branch of a fresh one vanish."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if name.endswith("weight") and parameter.ndim > 1:
            noise *= (parameter.numel() / parameter.shape[0]) ** -0.5
        elif name.endswith("weight"):
            noise = 1 + 0.1 * noise
        elif name.endswith("bias"):
            noise *= 0.1
        else:  # tables and learned tokens
            noise *= 0.4
        parameter.data.copy_(noise)


def load(recipe, args):
    """(model, scheduler, model_index.json): from the hub or a local folder, or random at toy size."""
    dtype = torch.float16 if args.half else torch.float32
    if args.random:
        index = {"_class_name": recipe.pipeline, "_diffusers_version": diffusers.__version__}
        scheduler = getattr(diffusers, recipe.scheduler)(**recipe.sampling)
        model = getattr(diffusers, recipe.model)(**recipe.toy)
        randomise(model)
        model.to(dtype)
    else:
        index = diffusers.DiffusionPipeline.load_config(args.model)
        scheduler = getattr(diffusers, index["scheduler"][1]).from_pretrained(args.model, subfolder="scheduler")
        model = getattr(diffusers, recipe.model).from_pretrained(args.model, subfolder="transformer", torch_dtype=dtype)
    parts = {"scheduler": scheduler, "transformer": model}
    kept = {key: value for key, value in index.items() if key.startswith("_")}
    return model, scheduler, kept | {name: ["diffusers", type(part).__name__] for name, part in parts.items()}


def example(model, recipe, size):
    """Inputs of the graph by name, in the model's type."""
    torch.manual_seed(0)
    inputs = recipe.inputs(SimpleNamespace(**model.config), size)
    return {name: value.to(model.dtype) if value.is_floating_point() else value for name, value in inputs.items()}


def export(step, inputs, open_axes, args, path):
    """`open_axes`: by input, from axis to the name of a size that is left open."""
    values = tuple(inputs.values())
    options = {"input_names": list(inputs), "output_names": ["prediction"], "opset_version": args.opset}
    if args.exporter == "dynamo":
        program = torch.onnx.export(step, values, dynamo=True, dynamic_shapes=(tuple(open_axes.values()),), **options)
        program.save(path, external_data=True)
    else:
        torch.onnx.export(step, values, path, dynamo=False, dynamic_axes=open_axes, **options)


def difference(path, step, inputs):
    """Relative L2 distance between ONNX Runtime and PyTorch."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    known = {value.name for value in session.get_inputs()}
    result = session.run(None, {name: value.numpy() for name, value in inputs.items() if name in known})[0]
    expected = step(*inputs.values()).double()
    return float((torch.from_numpy(result) - expected).norm() / expected.norm())


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--arch", choices=sorted(recipes), required=True)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--model", help="hub id, or a folder in diffusers' layout")
    source.add_argument("--random", action="store_true", help="toy size, random weights")
    parser.add_argument("-o", "--out", required=True, help="folder to write")
    parser.add_argument("--exporter", choices=["dynamo", "torchscript"], default="dynamo")
    parser.add_argument("--opset", type=int, help="default: 20 with dynamo, 17 with torchscript")
    parser.add_argument("--batch", type=int, default=2, help="rows of one call; guidance takes two for every latent")
    parser.add_argument("--dynamic-batch", action="store_true", help="leave the batch open")
    parser.add_argument("--check", action="store_true", help="run the file in ONNX Runtime and compare with PyTorch")
    parser.add_argument("--half", action="store_true", help="export in float16")
    for name in ("height", "width", "frames", "text"):
        parser.add_argument(f"--{name}", type=int, help="of the latent" if name != "text" else "tokens of text")
    args = parser.parse_args()
    args.opset = args.opset or {"dynamo": 20, "torchscript": 17}[args.exporter]

    recipe = recipes[args.arch]
    model, scheduler, index = load(recipe, args)
    edge = getattr(model.config, "sample_size", None)
    size = {"height": edge, "width": edge} | (recipe.toy_size if args.random else recipe.size) | {"batch": args.batch}
    size |= {name: value for name in size if (value := getattr(args, name)) is not None}

    folder = os.path.join(args.out, "transformer")
    model.save_config(folder)
    scheduler.save_config(os.path.join(args.out, "scheduler"))
    with open(os.path.join(args.out, "model_index.json"), "w") as file:
        json.dump(index, file, indent=2)
    path = os.path.join(folder, "model.onnx")
    size = SimpleNamespace(**size)
    inputs = example(model, recipe, size)
    open_axes = {name: {0: "batch"} if args.dynamic_batch and name not in recipe.unbatched else {} for name in inputs}
    recipe.prepare(model, size)
    step = Step(model, list(inputs), recipe.fixed(SimpleNamespace(**model.config), size)).eval()
    with torch.no_grad(), exportable():
        export(step, inputs, open_axes, args, path)
        print(path)
        if args.check:
            # An open batch is tried with another one.
            size.batch += args.dynamic_batch
            print(f"relative L2 {difference(path, step, example(model, recipe, size)):.1e}")


if __name__ == "__main__":
    main()
