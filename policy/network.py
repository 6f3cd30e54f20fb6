"""The denoiser that a preset and a spec call for, with all that is needed to read its tokens."""

from torch import nn

from forcing.policy.causal import CausalDenoiser
from forcing.policy.denoiser import TransformerDenoiser
from forcing.policy.pointing import places_of
from forcing.policy.preset import Preset
from forcing.policy.recurrent import RecurrentDenoiser
from forcing.policy.sampler import Model
from forcing.policy.tokens import Tokenizer


def build_denoiser(preset: Preset, tokenizer: Tokenizer) -> nn.Module:
    """An untrained denoiser; its weights come from torch's global generator.

    Raises ValueError if it shall point at places and nothing that is observed is one.
    """
    config, features, longest = preset.denoiser, tokenizer.stream_of_feature, preset.layout.max_length
    if preset.memory is not None:
        places = places_of(tokenizer) if config.pointing else None
        return CausalDenoiser(config, features, longest, preset.noise, places)
    kind = RecurrentDenoiser if config.kind == "recurrent" else TransformerDenoiser
    return kind(config, features, longest, preset.noise)


def as_model(preset: Preset, tokenizer: Tokenizer, denoiser: nn.Module) -> Model:
    return Model(denoiser, preset.noise, tokenizer.stream_of_feature)
