"""Images by attention over text and image together: SD3, FLUX, AuraFlow, Qwen-Image, Lumina 2, Z-Image."""
import types

import torch
from diffusers.models.transformers import transformer_z_image

from .recipe import Recipe, mask, times


def sd3(config, size):
    return {
        "hidden_states": torch.randn(size.batch, config.in_channels, size.height, size.width),
        "encoder_hidden_states": torch.randn(size.batch, size.text, config.joint_attention_dim),
        "pooled_projections": torch.randn(size.batch, config.pooled_projection_dim),
        "timestep": times(size.batch),
    }


def grid(rows, columns, axes, first):
    """Positions of a grid of tokens, [rows · columns, axes]: row and column stand in axes `first` and `first + 1`."""
    ids = torch.zeros(rows, columns, axes)
    ids[..., first] += torch.arange(rows)[:, None]
    ids[..., first + 1] += torch.arange(columns)
    return ids.reshape(rows * columns, axes)


def flux(config, size):
    inputs = {
        "hidden_states": torch.randn(size.batch, size.height * size.width, config.in_channels),
        "encoder_hidden_states": torch.randn(size.batch, size.text, config.joint_attention_dim),
        "pooled_projections": torch.randn(size.batch, config.pooled_projection_dim),
        "timestep": times(size.batch) / 1000,
        "img_ids": grid(size.height, size.width, axes=3, first=1),
        "txt_ids": torch.zeros(size.text, 3),
    }
    if config.guidance_embeds:
        inputs["guidance"] = torch.full((size.batch,), 3.5)
    return inputs


def flux2(config, size):
    text = torch.zeros(size.text, 4)
    text[:, 3] = torch.arange(size.text)
    inputs = {
        "hidden_states": torch.randn(size.batch, size.height * size.width, config.in_channels),
        "encoder_hidden_states": torch.randn(size.batch, size.text, config.joint_attention_dim),
        "timestep": times(size.batch) / 1000,
        "img_ids": grid(size.height, size.width, axes=4, first=1)[None].repeat(size.batch, 1, 1),
        "txt_ids": text[None].repeat(size.batch, 1, 1),
    }
    if config.guidance_embeds:
        inputs["guidance"] = torch.full((size.batch,), 4.0)
    return inputs


def auraflow(config, size):
    return {
        "hidden_states": torch.randn(size.batch, config.in_channels, size.height, size.width),
        "encoder_hidden_states": torch.randn(size.batch, size.text, config.joint_attention_dim),
        "timestep": times(size.batch) / 1000,
    }


def qwenimage(config, size):
    return {
        "hidden_states": torch.randn(size.batch, size.height * size.width, config.in_channels),
        "encoder_hidden_states": torch.randn(size.batch, size.text, config.joint_attention_dim),
        "encoder_hidden_states_mask": mask(size.batch, size.text),
        "timestep": times(size.batch) / 1000,
    }


def qwenimage_rotary(model, size):
    """The rotary tables as constants, in pairs of reals."""
    tables = model.pos_embed([[(1, size.height, size.width)]], max_txt_seq_len=size.text, device=torch.device("cpu"))
    tables = tuple(torch.view_as_real(table) for table in tables)
    model.pos_embed.forward = lambda *_, **__: tables


def lumina2(config, size):
    return {
        "hidden_states": torch.randn(size.batch, config.in_channels, size.height, size.width),
        "timestep": times(size.batch) / 1000,
        "encoder_hidden_states": torch.randn(size.batch, size.text, config.cap_feat_dim),
        "encoder_attention_mask": mask(size.batch, size.text).to(torch.int64),
    }


def lumina2_forward(self, hidden_states, timestep, encoder_hidden_states, encoder_attention_mask, return_dict=True):
    """The released `forward` cuts every text at its own length, which no graph can. Here padding stays, masked, between
    text and image: attention does not see order, and an image token's first position is still the length of its text."""
    p = self.config.patch_size
    batch, _, height, width = hidden_states.shape
    rows, columns, text = height // p, width // p, encoder_attention_mask.shape[1]
    image = hidden_states.unflatten(2, (rows, p)).unflatten(4, (columns, p))
    image = self.x_embedder(image.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2))
    time, text_states = self.time_caption_embed(hidden_states, timestep, encoder_hidden_states)

    first, second, third = self.rope_tables
    length = encoder_attention_mask.sum(dim=1).to(torch.int64)
    here = grid(rows, columns, axes=3, first=1).to(torch.int64)
    zeros = torch.zeros(text, dtype=torch.int64)
    text_rotary = torch.cat([first[:text], second[zeros], third[zeros]], dim=1).expand(batch, -1, -1, -1)
    image_rotary = torch.cat([second[here[:, 1]], third[here[:, 2]]], dim=1).expand(batch, -1, -1, -1)
    offset = first[length][:, None].expand(-1, rows * columns, -1, -1)
    image_rotary = torch.cat([offset, image_rotary], dim=2)

    for layer in self.context_refiner:
        text_states = layer(text_states, encoder_attention_mask, text_rotary)
    for layer in self.noise_refiner:
        image = layer(image, None, image_rotary, time)
    joint = torch.cat([text_states, image], dim=1)
    rotary = torch.cat([text_rotary, image_rotary], dim=1)
    kept = torch.cat([encoder_attention_mask, torch.ones(batch, rows * columns)], dim=1)
    for layer in self.layers:
        joint = layer(joint, kept, rotary, time)

    patches = self.norm_out(joint, time)[:, text:].unflatten(1, (rows, columns)).unflatten(3, (p, p, self.out_channels))
    return (patches.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3),)


def lumina2_prepare(model, size):
    model.rope_tables = [torch.view_as_real(table).float() for table in model.rope_embedder.freqs_cis]
    model.forward = types.MethodType(lumina2_forward, model)


def zimage(config, size):
    return {
        "x": torch.randn(size.batch, config.in_channels, 1, size.height, size.width),
        "t": times(size.batch) / 1000,
        "cap_feats": torch.randn(size.batch, size.text, config.cap_feat_dim),
    }


def zimage_prepare(model, size):
    """Lists of tensors become batches, all texts of one length, and the rotary tables pairs of reals."""
    transformer_z_image.pad_sequence = lambda parts, **_: torch.stack(list(parts))
    rope, forward = model.rope_embedder, model.forward
    tables = [torch.view_as_real(t) for t in rope.precompute_freqs_cis(rope.axes_dims, rope.axes_lens, rope.theta)]
    model.rope_embedder = lambda ids: torch.cat([table[ids[:, i].long()] for i, table in enumerate(tables)], dim=1)

    def batched(x, t, cap_feats, return_dict=True):
        return (torch.stack(forward(list(x.unbind(0)), t, list(cap_feats.unbind(0)), return_dict=False)[0]),)

    model.forward = batched


heads = {"num_attention_heads": 4, "attention_head_dim": 12}
square = {"height": 8, "width": 8}
packed = {"height": 4, "width": 4}

sd3_toy = {
    **heads,
    "sample_size": 8,
    "in_channels": 4,
    "out_channels": 4,
    "num_layers": 3,
    "joint_attention_dim": 32,
    "caption_projection_dim": 48,
    "pooled_projection_dim": 24,
    "pos_embed_max_size": 12,
}

recipes = {
    "sd3": Recipe(
        model="SD3Transformer2DModel",
        pipeline="StableDiffusion3Pipeline",
        toy=sd3_toy,
        size={"text": 333},
        toy_size={"text": 12},
        inputs=sd3,
        sampling={"shift": 3.0},
    ),
    "sd35": Recipe(
        model="SD3Transformer2DModel",
        pipeline="StableDiffusion3Pipeline",
        toy={**sd3_toy, "dual_attention_layers": (0, 1), "qk_norm": "rms_norm"},
        size={"text": 333},
        toy_size={"text": 12},
        inputs=sd3,
        sampling={"shift": 3.0},
    ),
    "flux": Recipe(
        model="FluxTransformer2DModel",
        pipeline="FluxPipeline",
        toy={
            **heads,
            "in_channels": 16,
            "num_layers": 2,
            "num_single_layers": 2,
            "joint_attention_dim": 32,
            "pooled_projection_dim": 24,
            "guidance_embeds": True,
            "axes_dims_rope": (4, 4, 4),
        },
        size={"height": 64, "width": 64, "text": 512},
        toy_size={**packed, "text": 12},
        inputs=flux,
        sampling={"shift": 3.0, "use_dynamic_shifting": True},
        unbatched=("img_ids", "txt_ids"),
    ),
    "flux2": Recipe(
        model="Flux2Transformer2DModel",
        pipeline="Flux2Pipeline",
        toy={
            "num_attention_heads": 3,
            "attention_head_dim": 16,
            "in_channels": 16,
            "num_layers": 2,
            "num_single_layers": 2,
            "joint_attention_dim": 32,
            "timestep_guidance_channels": 32,
            "axes_dims_rope": (4, 4, 4, 4),
        },
        size={"height": 64, "width": 64, "text": 512},
        toy_size={**packed, "text": 12},
        inputs=flux2,
        sampling={"shift": 3.0, "use_dynamic_shifting": True},
    ),
    "auraflow": Recipe(
        model="AuraFlowTransformer2DModel",
        pipeline="AuraFlowPipeline",
        toy={
            **heads,
            "sample_size": 8,
            "num_mmdit_layers": 2,
            "num_single_dit_layers": 2,
            "joint_attention_dim": 32,
            "caption_projection_dim": 48,
            "pos_embed_max_size": 36,
        },
        size={"height": 128, "width": 128, "text": 256},
        toy_size={**square, "text": 12},
        inputs=auraflow,
        sampling={"shift": 1.73},
    ),
    "qwenimage": Recipe(
        model="QwenImageTransformer2DModel",
        pipeline="QwenImagePipeline",
        toy={
            **heads,
            "in_channels": 16,
            "out_channels": 4,
            "num_layers": 2,
            "joint_attention_dim": 32,
            "axes_dims_rope": (4, 4, 4),
        },
        size={"height": 64, "width": 64, "text": 512},
        toy_size={**packed, "text": 12},
        inputs=qwenimage,
        sampling={"use_dynamic_shifting": True, "max_shift": 0.9, "max_image_seq_len": 8192, "shift_terminal": 0.02},
        prepare=qwenimage_rotary,
    ),
    "lumina2": Recipe(
        model="Lumina2Transformer2DModel",
        pipeline="Lumina2Pipeline",
        toy={
            "sample_size": 8,
            "in_channels": 4,
            "hidden_size": 48,
            "num_layers": 2,
            "num_refiner_layers": 1,
            "num_attention_heads": 4,
            "num_kv_heads": 2,
            "multiple_of": 16,
            "axes_dim_rope": (4, 4, 4),
            "axes_lens": (32, 16, 16),
            "cap_feat_dim": 32,
        },
        size={"text": 256},
        toy_size={"text": 12},
        inputs=lumina2,
        sampling={"shift": 6.0},
        prepare=lumina2_prepare,
    ),
    "zimage": Recipe(
        model="ZImageTransformer2DModel",
        pipeline="ZImagePipeline",
        toy={
            "in_channels": 4,
            "dim": 48,
            "n_layers": 2,
            "n_refiner_layers": 1,
            "n_heads": 4,
            "n_kv_heads": 4,
            "cap_feat_dim": 32,
            "axes_dims": [4, 4, 4],
            "axes_lens": [128, 16, 16],
        },
        size={"height": 128, "width": 128, "text": 128},
        toy_size={**square, "text": 12},
        inputs=zimage,
        sampling={"shift": 3.0},
        prepare=zimage_prepare,
    ),
}
