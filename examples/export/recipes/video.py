"""Video: Latte, CogVideoX, Wan, LTX-Video."""
import torch
from diffusers.models.embeddings import get_3d_rotary_pos_embed
from diffusers.pipelines.cogvideo.pipeline_cogvideox import get_resize_crop_region_for_grid

from .recipe import Recipe, linear_betas, mask, scaled_betas, times


def latte(config, size):
    return {
        "hidden_states": torch.randn(size.batch, config.in_channels, size.frames, size.height, size.width),
        "timestep": times(size.batch, integer=True),
        "encoder_hidden_states": torch.randn(size.batch, size.text, config.caption_channels),
    }


def cogvideox(config, size):
    return {
        "hidden_states": torch.randn(size.batch, size.frames, config.in_channels, size.height, size.width),
        "encoder_hidden_states": torch.randn(size.batch, config.max_text_seq_length, config.text_embed_dim),
        "timestep": times(size.batch, integer=True),
    }


def cogvideox_rotary(config, size):
    if not config.use_rotary_positional_embeddings:
        return {}
    grid = (size.height // config.patch_size, size.width // config.patch_size)
    base = (config.sample_width // config.patch_size, config.sample_height // config.patch_size)
    crop = get_resize_crop_region_for_grid(grid, *base)
    return {"image_rotary_emb": get_3d_rotary_pos_embed(config.attention_head_dim, crop, grid, size.frames)}


def wan(config, size):
    return {
        "hidden_states": torch.randn(size.batch, config.in_channels, size.frames, size.height, size.width),
        "timestep": times(size.batch, integer=True),
        "encoder_hidden_states": torch.randn(size.batch, size.text, config.text_dim),
    }


def ltx(config, size):
    return {
        "hidden_states": torch.randn(size.batch, size.frames * size.height * size.width, config.in_channels),
        "encoder_hidden_states": torch.randn(size.batch, size.text, config.caption_channels),
        "timestep": times(size.batch),
        "encoder_attention_mask": mask(size.batch, size.text),
    }


def ltx_coordinates(config, size):
    """The compression of the released autoencoder (8 frames, 32 pixels) at 25 frames a second."""
    scale = (8 / 25, 32, 32)
    return {"num_frames": size.frames, "height": size.height, "width": size.width, "rope_interpolation_scale": scale}


def ltx_rotary(model, size):
    """The rotary tables as constants: the TorchScript exporter takes wrong axes from the integers they are made of."""
    tokens = torch.zeros(1, size.frames * size.height * size.width, 1)
    tables = model.rope(tokens, **ltx_coordinates(model.config, size))
    model.rope.forward = lambda *_, **__: tables


heads = {"num_attention_heads": 4, "attention_head_dim": 12}
cogvideox_sampling = {
    **scaled_betas,
    "beta_end": 0.012,
    "rescale_betas_zero_snr": True,
    "timestep_spacing": "trailing",
}

cogvideox_toy = {
    "num_attention_heads": 3,
    "attention_head_dim": 16,
    "in_channels": 4,
    "out_channels": 4,
    "time_embed_dim": 32,
    "text_embed_dim": 32,
    "num_layers": 3,
    "sample_width": 8,
    "sample_height": 8,
    "sample_frames": 9,
    "max_text_seq_length": 12,
}

recipes = {
    "latte": Recipe(
        model="LatteTransformer3DModel",
        pipeline="LattePipeline",
        toy={
            **heads,
            "in_channels": 4,
            "out_channels": 8,
            "num_layers": 2,
            "cross_attention_dim": 48,
            "attention_bias": True,
            "sample_size": 8,
            "patch_size": 2,
            "activation_fn": "gelu-approximate",
            "num_embeds_ada_norm": 1000,
            "norm_type": "ada_norm_single",
            "norm_elementwise_affine": False,
            "norm_eps": 1e-6,
            "caption_channels": 32,
            "video_length": 3,
        },
        size={"frames": 16, "text": 120},
        toy_size={"frames": 3, "text": 10},
        inputs=latte,
        scheduler="DDIMScheduler",
        sampling={**linear_betas, "clip_sample": False},
    ),
    "cogvideox": Recipe(
        model="CogVideoXTransformer3DModel",
        pipeline="CogVideoXPipeline",
        toy={**cogvideox_toy, "use_rotary_positional_embeddings": True},
        size={"height": 60, "width": 90, "frames": 13},
        toy_size={"height": 8, "width": 8, "frames": 3},
        inputs=cogvideox,
        scheduler="CogVideoXDPMScheduler",
        sampling={**cogvideox_sampling, "snr_shift_scale": 1.0},
        fixed=cogvideox_rotary,
    ),
    "cogvideox2b": Recipe(
        model="CogVideoXTransformer3DModel",
        pipeline="CogVideoXPipeline",
        toy=cogvideox_toy,
        size={"height": 60, "width": 90, "frames": 13},
        toy_size={"height": 8, "width": 8, "frames": 3},
        inputs=cogvideox,
        scheduler="CogVideoXDDIMScheduler",
        sampling={**cogvideox_sampling, "snr_shift_scale": 3.0},
        fixed=cogvideox_rotary,
    ),
    "wan": Recipe(
        model="WanTransformer3DModel",
        pipeline="WanPipeline",
        toy={
            **heads,
            "in_channels": 4,
            "out_channels": 4,
            "text_dim": 32,
            "freq_dim": 32,
            "ffn_dim": 96,
            "num_layers": 3,
            "rope_max_seq_len": 32,
        },
        size={"height": 60, "width": 104, "frames": 21, "text": 512},
        toy_size={"height": 8, "width": 8, "frames": 3, "text": 12},
        inputs=wan,
        scheduler="UniPCMultistepScheduler",
        sampling={"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0},
    ),
    "ltx": Recipe(
        model="LTXVideoTransformer3DModel",
        pipeline="LTXPipeline",
        toy={**heads, "in_channels": 8, "out_channels": 8, "cross_attention_dim": 48, "num_layers": 3, "caption_channels": 32},
        size={"height": 16, "width": 22, "frames": 21, "text": 128},
        toy_size={"height": 4, "width": 4, "frames": 2, "text": 12},
        inputs=ltx,
        sampling={"use_dynamic_shifting": True, "base_shift": 0.95, "max_shift": 2.05, "base_image_seq_len": 1024, "shift_terminal": 0.1},
        fixed=ltx_coordinates,
        prepare=ltx_rotary,
    ),
}
