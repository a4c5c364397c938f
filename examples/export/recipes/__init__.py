"""What each architecture needs to become one ONNX graph: its class, a toy configuration, example inputs, and its quirks."""
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Callable

import torch


@dataclass(frozen=True)
class Recipe:
    model: str
    """Class in diffusers."""
    scheduler: str
    """Class in diffusers that the release samples with."""
    toy: dict[str, Any]
    """Constructor arguments of a model of the same structure and less than a megabyte."""
    size: dict[str, int]
    """`height`, `width` (of the latent), `frames`, `text` (tokens) of the release; what is absent does not apply."""
    toy_size: dict[str, int]
    inputs: Callable[[SimpleNamespace, SimpleNamespace], dict[str, torch.Tensor]]
    """(configuration, size with `batch`) to the graph's inputs, named as the keywords of the model's `forward`."""
    fixed: Callable[[SimpleNamespace, SimpleNamespace], dict[str, Any]] = lambda config, size: {}
    """Further keywords of `forward` that become constants of the graph: sizes and what depends on nothing but them."""
    prepare: Callable[[torch.nn.Module, SimpleNamespace], None] = lambda model, size: None
    """Changes the model in place where it cannot be exported as released; the numbers stay the same."""
    unbatched: tuple[str, ...] = ()
    """Inputs without a batch axis."""


def normal(*shape):
    return torch.randn(*shape)


def times(batch, integer=False):
    """The same time for every row, as a sampler gives it."""
    return torch.full((batch,), 500, dtype=torch.int64) if integer else torch.full((batch,), 500.0)


def mask(batch, length):
    """All tokens count but the last two of the first row."""
    kept = torch.ones(batch, length)
    kept[0, -2:] = 0
    return kept


def recipes():
    """All recipes by name."""
    from . import audio, image, joint, video

    return image.recipes | joint.recipes | video.recipes | audio.recipes
