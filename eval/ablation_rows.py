"""The rows of `forcing bench ablation`: what is changed in a recipe before it is trained, or in planning afterwards."""

from collections.abc import Sequence
from dataclasses import dataclass

from forcing.eval.plan_rows import ALONE
from forcing.policy.names import UnknownName, did_you_mean
from forcing.policy.preset import Preset


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """A row.

    key: as typed, and the run's folder. trained: settings that training decides. planned: settings of the planner that
    go with it. halved_tokens: tokens half as long, twice as many. weights_of: key of the variant whose weights it uses,
    its own if None.
    """

    key: str
    name: str
    trained: tuple[str, ...] = ()
    planned: tuple[str, ...] = ()
    halved_tokens: bool = False
    weights_of: str | None = None

    def settings(self, preset: Preset) -> tuple[str, ...]:
        """All changes to a recipe, as `forcing train --set` takes them. Plans are samples as they come: what improves
        on them would hide how good a network is."""
        layout, halved = preset.layout, tuple[str, ...]()
        if self.halved_tokens:
            halved = (f"layout.token_steps={layout.token_steps // 2}", f"layout.horizon={2 * layout.horizon}")
        return (*halved, *self.trained, *ALONE, *self.planned)


def _levels(**shares: float) -> tuple[str, ...]:
    """Shares of windows by how their plan tokens are noised, 0 for those not named."""
    kinds = ("independent", "shared", "pyramid", "next_token")
    return tuple(f"levels.{kind}={shares.get(kind, 0.0)}" for kind in kinds)


def _schedule(kind: str) -> tuple[str, ...]:
    return (f"planner.schedule.kind={kind}", "planner.passes=none")


VARIANTS = (
    Variant(key="as-is", name="as is"),
    Variant(key="causal", name="causal transformer", trained=("denoiser.causal=true",)),
    Variant(key="recurrent", name="recurrent, the paper's cell", trained=("denoiser.kind=recurrent",)),
    Variant(key="eps", name="target: noise", trained=("denoiser.target=eps",)),
    Variant(key="v", name="target: v", trained=("denoiser.target=v",)),
    Variant(key="cosine", name="noise: cosine", trained=("noise.kind=cosine",)),
    Variant(key="sigmoid", name="noise: sigmoid", trained=("noise.kind=sigmoid",)),
    Variant(key="min-snr", name="weight: min(SNR, 5)", trained=("optimiser.weight=min_snr",)),
    Variant(key="uniform", name="weight: uniform", trained=("optimiser.weight=uniform",)),
    Variant(key="fused-snr", name="weight: fused SNR", trained=("optimiser.weight=fused_snr",)),
    Variant(key="independent", name="independent levels only", trained=_levels(independent=1)),
    Variant(
        key="full-sequence",
        name="full-sequence diffusion: equal levels in training and sampling",
        trained=_levels(shared=1),
        planned=_schedule("full_sequence"),
    ),
    Variant(
        key="teacher-forcing",
        name="teacher forcing: causal, token by token",
        trained=(*_levels(next_token=1), "denoiser.causal=true"),
        planned=_schedule("autoregressive"),
    ),
    Variant(key="half-tokens", name="tokens half as long, twice as many", halved_tokens=True),
    Variant(key="history", name="a token of history shown", planned=("planner.history_frames=8",), weights_of="as-is"),
)


def variants_of(keys: Sequence[str]) -> list[Variant]:
    """The variants of these keys, all if none is named. Raises UnknownName."""
    known = [variant.key for variant in VARIANTS]
    for key in keys:
        if key not in known:
            raise UnknownName(f"unknown rows {key!r}; {did_you_mean(key, known)}")
    return [variant for variant in VARIANTS if not keys or variant.key in keys]
