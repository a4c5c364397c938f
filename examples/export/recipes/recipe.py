"""What a recipe holds, and what several of them share."""
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Callable

import torch


@dataclass(frozen=True)
class Recipe:
    model: str
    """Class in diffusers, as are the next two."""
    pipeline: str
    toy: dict[str, Any]
    """Constructor arguments of a model of the same structure and less than two megabytes."""
    inputs: Callable[[SimpleNamespace, SimpleNamespace], dict[str, torch.Tensor]]
    """(configuration, size and batch) to the graph's inputs, named as the keywords of the model's `forward`."""
    size: dict[str, int] = field(default_factory=dict)
    """`height` and `width` of the latent, where they are not the configuration's `sample_size`, `frames`, and `text` tokens:
    of the release, in the units of the model's input."""
    toy_size: dict[str, int] = field(default_factory=dict)
    scheduler: str = "FlowMatchEulerDiscreteScheduler"
    sampling: dict[str, Any] = field(default_factory=dict)
    """Settings of the scheduler of a toy; a release brings its own."""
    fixed: Callable[[SimpleNamespace, SimpleNamespace], dict[str, Any]] = lambda config, size: {}
    """Further keywords of `forward` that become constants of the graph: sizes, and what depends on nothing but them."""
    prepare: Callable[[torch.nn.Module, SimpleNamespace], None] = lambda model, size: None
    """Changes the model in place where it cannot be exported as released; the numbers stay the same."""
    unbatched: tuple[str, ...] = ()
    """Inputs without a batch axis."""


def times(batch, integer=False):
    """The same time for every row, as a sampler gives it."""
    return torch.full((batch,), 500, dtype=torch.int64) if integer else torch.full((batch,), 500.0)


def mask(batch, length):
    """All tokens count but the last two of the first row."""
    kept = torch.ones(batch, length)
    kept[0, -2:] = 0
    return kept


linear_betas = {"beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear"}
scaled_betas = {"beta_start": 0.00085, "beta_schedule": "scaled_linear", "prediction_type": "v_prediction"}
