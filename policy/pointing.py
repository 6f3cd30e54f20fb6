"""Where an action goes, said as one of the places that were just seen and an offset from there.

What is to be done with a thing is done where the thing is, wherever that be: told as a place in the room alone, it must
be learned anew for every place, and few demonstrations show few of them. Knows no recording and no noise.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from forcing.policy.tokens import Tokenizer

ENTRIES = 3  # x, y, z


@dataclass(frozen=True, slots=True)
class Places:
    """seen: [P, 3] features that are the places a token shows. aimed: [A, 3] features that are those its actions go to.
    scale, shift: [P, 3] by which a place that is seen becomes one that is aimed at, both normalised."""

    seen: Tensor
    aimed: Tensor
    scale: Tensor
    shift: Tensor


def places_of(tokenizer: Tokenizer) -> Places:
    """Of observations in m those of three entries each, the last that a token shows; of an action the first three.

    Raises ValueError if nothing that is observed, or no action, is a place.
    """
    normaliser = tokenizer.normaliser
    (action,) = tokenizer.spec.of_role("action")
    in_metres = [s for s in tokenizer.spec.of_role("observation") if s.units == "m" and s.size % ENTRIES == 0]
    if not in_metres or action.size < ENTRIES:
        raise ValueError(
            "denoiser.pointing must be false where no place is observed: an observation in m of x, y, z, and an action "
            f"whose first three entries are one, got {', '.join(s.name for s in tokenizer.spec.streams)}"
        )
    acted = tokenizer.slices[action.name]
    aimed = torch.arange(acted.start, acted.stop).view(-1, action.size)[:, :ENTRIES]

    def of_action(numbers: tuple[float, ...]) -> Tensor:
        return torch.tensor(numbers[:ENTRIES], dtype=torch.float64)

    mean, std = of_action(normaliser.mean[action.name]), of_action(normaliser.std[action.name])
    seen, scale, shift = [], [], []
    for stream in in_metres:
        shown = tokenizer.slices[stream.name]
        seen.append(torch.arange(shown.stop - stream.size, shown.stop).view(-1, ENTRIES))
        each = [
            torch.tensor(numbers[stream.name], dtype=torch.float64).view(-1, ENTRIES)
            for numbers in (normaliser.std, normaliser.mean)
        ]
        scale.append(each[0] / std)
        shift.append((each[1] - mean) / std)
    return Places(torch.cat(seen), aimed, torch.cat(scale).float(), torch.cat(shift).float())


class Pointing(nn.Module):
    """What is added to a guess of actions: the places that the token before shows, each by its share (after the pointer
    networks of Vinyals et al. 2015, arXiv:1506.03134). Shares sum to 1: what an action has to do with no place is for
    the offset to say. Allowed to point at none, networks did so nearly always and learned places by heart."""

    seen: Tensor
    aimed: Tensor
    scale: Tensor
    shift: Tensor

    def __init__(self, places: Places, width: int) -> None:
        """width: of what the network says of a token."""
        super().__init__()
        for name in Places.__dataclass_fields__:
            self.register_buffer(name, getattr(places, name), persistent=False)
        self.shares = nn.Linear(width, len(places.aimed) * len(places.seen))

    def forward(self, hidden: Tensor, before: Tensor) -> Tensor:
        """[B, L, D] to add, 0 for what is no place. hidden: [B, L, width]. before: [B, L, D] each token's
        predecessor, normalised."""
        shares = self.shares(hidden).unflatten(-1, (len(self.aimed), -1)).float().softmax(dim=-1)
        places = before[..., self.seen] * self.scale + self.shift
        added = torch.zeros_like(before)
        added[..., self.aimed] = torch.einsum("blap,blpc->blac", shares, places.float()).to(added.dtype)
        return added
