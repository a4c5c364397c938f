"""Images by self-attention, cross-attention or class labels: DiT, PixArt, HunyuanDiT, Sana."""
import torch
from diffusers.models.embeddings import get_2d_rotary_pos_embed
from diffusers.pipelines.hunyuandit.pipeline_hunyuandit import get_resize_crop_region_for_grid

from .recipe import Recipe, linear_betas, mask, scaled_betas, times


def dit(config, size):
    return {
        "hidden_states": torch.randn(size.batch, config.in_channels, size.height, size.width),
        "timestep": times(size.batch, integer=True),
        "class_labels": torch.arange(size.batch) % config.num_embeds_ada_norm,
    }


def pixart(config, size):
    inputs = {
        "hidden_states": torch.randn(size.batch, config.in_channels, size.height, size.width),
        "encoder_hidden_states": torch.randn(size.batch, size.text, config.caption_channels),
        "timestep": times(size.batch, integer=True),
        "encoder_attention_mask": mask(size.batch, size.text),
    }
    if config.use_additional_conditions or (config.use_additional_conditions is None and config.sample_size == 128):
        pixels = torch.tensor([[8.0 * size.height, 8.0 * size.width]])
        inputs["resolution"] = pixels.repeat(size.batch, 1)
        inputs["aspect_ratio"] = torch.full((size.batch, 1), size.height / size.width)
    return inputs


def pixart_prepare(model, size):
    """The size conditions arrive by name and go on in one dictionary."""
    forward = model.forward

    def named(resolution=None, aspect_ratio=None, **inputs):
        return forward(added_cond_kwargs={"resolution": resolution, "aspect_ratio": aspect_ratio}, **inputs)

    model.forward = named


def sana(config, size):
    return {
        "hidden_states": torch.randn(size.batch, config.in_channels, size.height, size.width),
        "encoder_hidden_states": torch.randn(size.batch, size.text, config.caption_channels),
        "timestep": times(size.batch),
        "encoder_attention_mask": mask(size.batch, size.text),
    }


def hunyuandit(config, size):
    inputs = {
        "hidden_states": torch.randn(size.batch, config.in_channels, size.height, size.width),
        "timestep": times(size.batch),
        "encoder_hidden_states": torch.randn(size.batch, config.text_len, config.cross_attention_dim),
        "text_embedding_mask": mask(size.batch, config.text_len),
        "encoder_hidden_states_t5": torch.randn(size.batch, config.text_len_t5, config.cross_attention_dim_t5),
        "text_embedding_mask_t5": mask(size.batch, config.text_len_t5),
    }
    if config.use_style_cond_and_image_meta_size:
        pixels = torch.tensor([8.0 * size.height, 8.0 * size.width])
        inputs["image_meta_size"] = torch.cat([pixels, pixels, torch.zeros(2)]).repeat(size.batch, 1)
        inputs["style"] = torch.zeros(size.batch, dtype=torch.int64)
    return inputs


def hunyuandit_rotary(config, size):
    """Positions are counted on the grid of 512 pixels, which the grid of the image is laid over."""
    grid = (size.height // config.patch_size, size.width // config.patch_size)
    crop = get_resize_crop_region_for_grid(grid, 64 // config.patch_size)
    table = get_2d_rotary_pos_embed(config.attention_head_dim, crop, grid, output_type="pt")
    return {"image_rotary_emb": table}


heads = {"num_attention_heads": 4, "attention_head_dim": 12}

recipes = {
    "dit": Recipe(
        model="DiTTransformer2DModel",
        pipeline="DiTPipeline",
        toy={**heads, "in_channels": 4, "out_channels": 8, "num_layers": 3, "sample_size": 8, "num_embeds_ada_norm": 100},
        inputs=dit,
        scheduler="DDIMScheduler",
        sampling={**linear_betas, "clip_sample": False},
    ),
    "pixart": Recipe(
        model="PixArtTransformer2DModel",
        pipeline="PixArtSigmaPipeline",
        toy={
            **heads,
            "num_layers": 3,
            "cross_attention_dim": 48,
            "sample_size": 8,
            "caption_channels": 32,
            "use_additional_conditions": False,
        },
        size={"text": 300},
        toy_size={"text": 12},
        inputs=pixart,
        prepare=pixart_prepare,
        scheduler="DPMSolverMultistepScheduler",
        sampling=linear_betas,
    ),
    "hunyuandit": Recipe(
        model="HunyuanDiT2DModel",
        pipeline="HunyuanDiTPipeline",
        toy={
            **heads,
            "in_channels": 4,
            "patch_size": 2,
            "sample_size": 8,
            "hidden_size": 48,
            "num_layers": 6,
            "cross_attention_dim": 32,
            "cross_attention_dim_t5": 40,
            "pooled_projection_dim": 24,
            "text_len": 6,
            "text_len_t5": 8,
            "use_style_cond_and_image_meta_size": False,
        },
        inputs=hunyuandit,
        scheduler="DDPMScheduler",
        sampling={**scaled_betas, "beta_end": 0.018, "clip_sample": False, "steps_offset": 1},
        fixed=hunyuandit_rotary,
    ),
    "sana": Recipe(
        model="SanaTransformer2DModel",
        pipeline="SanaPipeline",
        toy={
            **heads,
            "in_channels": 8,
            "out_channels": 8,
            "num_layers": 3,
            "num_cross_attention_heads": 4,
            "cross_attention_head_dim": 12,
            "cross_attention_dim": 48,
            "caption_channels": 32,
            "sample_size": 8,
        },
        size={"text": 300},
        toy_size={"text": 12},
        inputs=sana,
        scheduler="DPMSolverMultistepScheduler",
        sampling={"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0},
    ),
}
