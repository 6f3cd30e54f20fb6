"""The denoiser that a preset and a spec call for, with all that is needed to read its tokens."""

from torch import nn

from forcing.policy.causal import CausalDenoiser
from forcing.policy.denoiser import TransformerDenoiser
from forcing.policy.preset import Preset
from forcing.policy.recurrent import RecurrentDenoiser
from forcing.policy.sampler import Model
from forcing.policy.tokens import Tokenizer


def build_denoiser(preset: Preset, tokenizer: Tokenizer) -> nn.Module:
    """An untrained denoiser; its weights come from torch's global generator."""
    kind: type[nn.Module] = RecurrentDenoiser if preset.denoiser.kind == "recurrent" else TransformerDenoiser
    if preset.memory is not None:
        kind = CausalDenoiser
    return kind(preset.denoiser, tokenizer.stream_of_feature, preset.layout.max_length, preset.noise)


def as_model(preset: Preset, tokenizer: Tokenizer, denoiser: nn.Module) -> Model:
    return Model(denoiser, preset.noise, tokenizer.stream_of_feature)
