"""Sound: Stable Audio, ACE-Step 1.5."""
import torch
from diffusers.models.embeddings import get_1d_rotary_pos_embed

from . import Recipe, normal, times


def stable_audio(config, size):
    return {
        "hidden_states": normal(size.batch, config.in_channels, size.width),
        "timestep": torch.full((1,), 0.5),
        "encoder_hidden_states": normal(size.batch, size.text, config.cross_attention_input_dim),
        "global_hidden_states": normal(size.batch, 1, config.global_states_input_dim),
    }


def stable_audio_rotary(config, size):
    """One position more than the latent: the time token comes first."""
    half = config.attention_head_dim // 2
    table = get_1d_rotary_pos_embed(half, size.width + 1, use_real=True, repeat_interleave_real=False)
    return {"rotary_embedding": table}


def acestep(config, size):
    """`context_latents` holds the source latent and its mask, twice the channels of the latent."""
    channels = config.audio_acoustic_hidden_dim
    return {
        "hidden_states": normal(size.batch, size.width, channels),
        "timestep": times(size.batch) / 1000,
        "timestep_r": times(size.batch) / 1000,
        "encoder_hidden_states": normal(size.batch, size.text, config.encoder_hidden_size or config.hidden_size),
        "context_latents": normal(size.batch, size.width, config.in_channels - channels),
    }


recipes = {
    "stable_audio": Recipe(
        model="StableAudioDiTModel",
        scheduler="CosineDPMSolverMultistepScheduler",
        toy={
            "sample_size": 32,
            "in_channels": 8,
            "num_layers": 3,
            "attention_head_dim": 12,
            "num_attention_heads": 4,
            "num_key_value_attention_heads": 2,
            "out_channels": 8,
            "cross_attention_dim": 24,
            "time_proj_dim": 32,
            "global_states_input_dim": 40,
            "cross_attention_input_dim": 32,
        },
        size={"width": 1024, "text": 130},
        toy_size={"width": 32, "text": 10},
        inputs=stable_audio,
        fixed=stable_audio_rotary,
        unbatched=("timestep",),
    ),
    "acestep15": Recipe(
        model="AceStepTransformer1DModel",
        scheduler="FlowMatchEulerDiscreteScheduler",
        toy={
            "hidden_size": 48,
            "intermediate_size": 96,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 12,
            "in_channels": 24,
            "audio_acoustic_hidden_dim": 8,
            "sliding_window": 4,
        },
        size={"width": 1500, "text": 256},
        toy_size={"width": 16, "text": 10},
        inputs=acestep,
    ),
}
