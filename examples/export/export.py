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


class Step(torch.nn.Module):
    """The model with its inputs by position and one output: what both exporters want."""

    def __init__(self, model, names, fixed):
        super().__init__()
        self.model, self.names, self.fixed = model, names, fixed

    def forward(self, *values):
        keywords = dict(zip(self.names, values)) | self.fixed
        # PixArt takes its size conditions in one dictionary.
        sizes = {name: keywords.pop(name, None) for name in ("resolution", "aspect_ratio")}
        if "added_cond_kwargs" in self.model.forward.__code__.co_varnames:
            keywords["added_cond_kwargs"] = sizes
        return self.model(**keywords, return_dict=False)[0]


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


def build(recipe, args):
    """(model, scheduler): from the hub or a local folder, or random at toy size."""
    scheduler = getattr(diffusers, recipe.scheduler)
    model = getattr(diffusers, recipe.model)
    if args.random:
        torch.manual_seed(0)
        model = model(**recipe.toy)
        randomise(model)
        return model, scheduler()
    kind = torch.float16 if args.half else torch.float32
    model = model.from_pretrained(args.model, subfolder="transformer", torch_dtype=kind)
    return model, scheduler.from_pretrained(args.model, subfolder="scheduler")


def export(model, recipe, size, args, path):
    config = SimpleNamespace(**model.config)
    inputs = recipe.inputs(config, size)
    dtype = next(model.parameters()).dtype
    inputs = {name: value.to(dtype) if value.is_floating_point() else value for name, value in inputs.items()}
    recipe.prepare(model, size)
    step = Step(model, list(inputs), recipe.fixed(config, size)).eval()
    batched = [{} if not args.dynamic_batch or name in recipe.unbatched else {0: "batch"} for name in inputs]
    with torch.no_grad(), exportable():
        common = {"input_names": list(inputs), "output_names": ["prediction"], "opset_version": args.opset}
        if args.exporter == "dynamo":
            axes = {"dynamic_shapes": (tuple(batched),)} if args.dynamic_batch else {}
            program = torch.onnx.export(step, tuple(inputs.values()), dynamo=True, **common, **axes)
            program.save(path, external_data=not args.random)
        else:
            axes = {"dynamic_axes": dict(zip(inputs, batched))} if args.dynamic_batch else {}
            torch.onnx.export(step, tuple(inputs.values()), path, dynamo=False, **common, **axes)
        return inputs, step(*inputs.values())


def main():
    known = recipes()
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--arch", choices=sorted(known), required=True)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--model", help="hub id, or a folder in diffusers' layout")
    source.add_argument("--random", action="store_true", help="toy size, random weights")
    parser.add_argument("-o", "--out", required=True, help="folder to write")
    parser.add_argument("--exporter", choices=["dynamo", "torchscript"], default="dynamo")
    parser.add_argument("--opset", type=int, help="default: 20 with dynamo, 17 with torchscript")
    parser.add_argument("--batch", type=int, default=2, help="rows of one call; guidance takes two for every latent")
    parser.add_argument("--dynamic-batch", action="store_true", help="leave the batch open")
    parser.add_argument("--half", action="store_true", help="export in float16")
    for name in ("height", "width", "frames", "text"):
        parser.add_argument(f"--{name}", type=int, help="of the latent" if name != "text" else "tokens of text")
    args = parser.parse_args()
    args.opset = args.opset or {"dynamo": 20, "torchscript": 17}[args.exporter]

    recipe = known[args.arch]
    size = {**(recipe.toy_size if args.random else recipe.size), "batch": args.batch}
    size.update({name: value for name in size if (value := getattr(args, name)) is not None})
    model, scheduler = build(recipe, args)
    folder = os.path.join(args.out, "transformer")
    os.makedirs(folder, exist_ok=True)
    model.save_config(folder)
    scheduler.save_pretrained(os.path.join(args.out, "scheduler"))
    parts = {"transformer": ["diffusers", recipe.model], "scheduler": ["diffusers", recipe.scheduler]}
    with open(os.path.join(args.out, "model_index.json"), "w") as file:
        json.dump({"_diffusers_version": diffusers.__version__, **parts}, file, indent=2)
    export(model, recipe, SimpleNamespace(**size), args, os.path.join(folder, "model.onnx"))
    print(os.path.join(folder, "model.onnx"))


if __name__ == "__main__":
    main()
