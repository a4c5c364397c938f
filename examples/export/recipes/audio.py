"""Sound: Stable Audio, ACE-Step 1.5."""
import torch
from diffusers.models.embeddings import get_1d_rotary_pos_embed

from .recipe import Recipe, times


def stable_audio(config, size):
    return {
        "hidden_states": torch.randn(size.batch, config.in_channels, size.frames),
        "timestep": torch.full((1,), 0.5),
        "encoder_hidden_states": torch.randn(size.batch, size.text, config.cross_attention_input_dim),
        "global_hidden_states": torch.randn(size.batch, 1, config.global_states_input_dim),
    }


def stable_audio_rotary(config, size):
    """One position more than the latent: the time token comes first."""
    half = config.attention_head_dim // 2
    table = get_1d_rotary_pos_embed(half, size.frames + 1, use_real=True, repeat_interleave_real=False)
    return {"rotary_embedding": table}


def acestep(config, size):
    """`context_latents` holds the source latent and its mask, twice the channels of the latent."""
    channels = config.audio_acoustic_hidden_dim
    return {
        "hidden_states": torch.randn(size.batch, size.frames, channels),
        "timestep": times(size.batch) / 1000,
        "timestep_r": times(size.batch) / 1000,
        "encoder_hidden_states": torch.randn(size.batch, size.text, config.encoder_hidden_size or config.hidden_size),
        "context_latents": torch.randn(size.batch, size.frames, config.in_channels - channels),
    }


recipes = {
    "stable_audio": Recipe(
        model="StableAudioDiTModel",
        pipeline="StableAudioPipeline",
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
        size={"frames": 1024, "text": 130},
        toy_size={"frames": 32, "text": 10},
        inputs=stable_audio,
        scheduler="CosineDPMSolverMultistepScheduler",
        fixed=stable_audio_rotary,
        unbatched=("timestep",),
    ),
    "acestep15": Recipe(
        model="AceStepTransformer1DModel",
        pipeline="AceStepPipeline",
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
        size={"frames": 1500, "text": 256},
        toy_size={"frames": 16, "text": 10},
        inputs=acestep,
        sampling={"num_train_timesteps": 1, "shift": 3.0},
    ),
}
