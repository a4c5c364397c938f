"""What keeps a released model out of the ONNX exporters, and what is put in its place: the same numbers, other operators."""
import contextlib
from unittest import mock

import torch
import torch.nn.functional as functional
from torch.onnx import register_custom_op_symbolic, symbolic_helper

attend = functional.scaled_dot_product_attention
squeeze = torch.Tensor.squeeze
view_as_real = torch.view_as_real


def plain_attention(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False):
    """Attention without grouped heads and without a mask that broadcasts over queries: the TorchScript exporter knows no
    grouped heads, and ONNX Runtime's `Attention` on CPU refuses such a mask."""
    if enable_gqa:
        groups = query.shape[-3] // key.shape[-3]
        key, value = key.repeat_interleave(groups, dim=-3), value.repeat_interleave(groups, dim=-3)
    if attn_mask is not None and attn_mask.shape[-2] == 1:
        attn_mask = attn_mask.expand(*attn_mask.shape[:-2], query.shape[-2], attn_mask.shape[-1])
    return attend(query, key, value, attn_mask=attn_mask, dropout_p=dropout_p, is_causal=is_causal, scale=scale)


def strict_squeeze(input, dim=None):
    """`squeeze(1)` on an axis of another size does nothing in PyTorch and is an error in ONNX: PixArt calls it so."""
    if dim is None:
        return squeeze(input)
    axes = [axis for axis in (dim if isinstance(dim, (tuple, list)) else [dim]) if input.shape[axis] == 1]
    for axis in sorted((axis % input.ndim for axis in axes), reverse=True):
        input = squeeze(input, axis)
    return input


class Rotation:
    """A complex tensor as pairs of reals, for the one thing rotary embeddings do with it. ONNX has no complex numbers."""

    def __init__(self, pairs):
        self.pairs = pairs

    @staticmethod
    def real(input):
        return input.pairs if isinstance(input, Rotation) else view_as_real(input)

    def __mul__(self, by):
        (a, b), (c, d) = self.pairs.unbind(-1), (by.pairs if isinstance(by, Rotation) else by).unbind(-1)
        return Rotation(torch.stack([a * c - b * d, a * d + b * c], dim=-1))

    __rmul__ = __mul__


@symbolic_helper.parse_args("v", "is", "v", "f")
def rms_norm(g, x, shape, weight, eps):
    """`aten::rms_norm` for the TorchScript exporter, which has no symbolic for it: x / sqrt(mean(x²) + eps) · weight.
    As opset 17 and earlier write it: from 18 on the axes are an input."""
    axes = list(range(-len(shape), 0))
    square = g.op("Pow", x, g.op("Constant", value_t=torch.tensor(2.0)))
    mean = g.op("ReduceMean", square, axes_i=axes, keepdims_i=1)
    # PyTorch's default eps is the machine epsilon of the type.
    eps = torch.finfo(torch.float32).eps if eps is None else eps
    root = g.op("Sqrt", g.op("Add", mean, g.op("Constant", value_t=torch.tensor(eps))))
    normed = g.op("Div", x, root)
    return normed if symbolic_helper._is_none(weight) else g.op("Mul", normed, weight)


@contextlib.contextmanager
def exportable():
    """The patches that no model needs for itself; inside the block every model computes what it did before."""
    register_custom_op_symbolic("aten::rms_norm", rms_norm, 9)
    with (
        mock.patch.object(functional, "scaled_dot_product_attention", plain_attention),
        mock.patch.object(torch.Tensor, "squeeze", strict_squeeze),
        mock.patch.object(torch, "squeeze", strict_squeeze),
        mock.patch.object(torch, "view_as_complex", Rotation),
        mock.patch.object(torch, "view_as_real", Rotation.real),
    ):
        yield
