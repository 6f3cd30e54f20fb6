"""Where things are from one another, and where an action goes from the places that were just seen.

What is to be done with a thing is done where the thing is, wherever that be: told as a place in the room alone, it must
be learned anew for every place, and few demonstrations show few of them. Knows no recording and no noise.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from forcing.policy.denoiser import with_waves
from forcing.policy.tokens import Tokenizer

ENTRIES = 3  # x, y, z
# Of the sines and cosines of lengths, in standard deviations of actions, about 10 cm: those of a few millimetres count.
FREQUENCIES = (4.0, 8.0, 16.0, 32.0)
SHARPNESS = 4.0  # of shares: untrained, one place of three has three quarters on average, and each is tried somewhere


@dataclass(frozen=True, slots=True)
class Places:
    """seen: [P, 3] features that are the places a token shows. aimed: [A, 3] features that are those its actions go to.
    scale, shift: [P, 3] by which a place that is seen becomes one that is aimed at, both normalised."""

    seen: Tensor
    aimed: Tensor
    scale: Tensor
    shift: Tensor


def places_of(tokenizer: Tokenizer) -> Places:
    """What `StreamSpec.places` says, of observations those of the last frame that a token shows.

    Raises ValueError if nothing that is observed, or no action, is a place.
    """
    normaliser = tokenizer.normaliser
    (action,) = tokenizer.spec.of_role("action")
    in_metres = [stream for stream in tokenizer.spec.of_role("observation") if stream.places]
    if not in_metres or not action.places:
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
    """Reads places of a token, and adds those of the token before to a guess of actions, each by its share (after the
    pointer networks of Vinyals et al. 2015, arXiv:1506.03134). Shares sum to 1: what an action has to do with no place
    is for the offset to say. Allowed to point at none, networks did so nearly always and learned places by heart."""

    seen: Tensor
    aimed: Tensor
    scale: Tensor
    shift: Tensor
    pairs: Tensor

    def __init__(self, places: Places, width: int) -> None:
        """width: of what the network says of a token."""
        super().__init__()
        for name in Places.__dataclass_fields__:
            self.register_buffer(name, getattr(places, name), persistent=False)
        self.register_buffer("pairs", torch.combinations(torch.arange(len(places.seen))), persistent=False)
        told = (1 + 2 * len(FREQUENCIES)) * self.pairs.shape[0] * places.seen.shape[1]
        self.embed = nn.Linear(told, width) if told else None
        self.shares = nn.Linear(width, len(places.aimed) * len(places.seen))

    def between(self, tokens: Tensor) -> Tensor:
        """[B, L, width] what is told of the ways from each place to each other. tokens: [B, L, D], normalised."""
        if self.embed is None:  # there is one place
            return tokens.new_zeros(*tokens.shape[:2], self.shares.in_features)
        places = self._places(tokens)
        ways = (places[..., self.pairs[:, 0], :] - places[..., self.pairs[:, 1], :]).flatten(-2)
        embedded: Tensor = self.embed(with_waves(ways, FREQUENCIES))
        return embedded

    def forward(self, hidden: Tensor, before: Tensor) -> Tensor:
        """[B, L, D] to add, 0 for what is no place. hidden: [B, L, width]. before: [B, L, D] each token's
        predecessor, normalised."""
        shares = (SHARPNESS * self.shares(hidden).float()).unflatten(-1, (len(self.aimed), -1)).softmax(dim=-1)
        added = torch.zeros_like(before, dtype=torch.float32)
        with torch.autocast(hidden.device.type, enabled=False):  # bfloat16 would be a millimetre off
            added[..., self.aimed] = torch.einsum("blap,blpc->blac", shares, self._places(before))
        return added

    def _places(self, tokens: Tensor) -> Tensor:
        """[B, L, P, 3] as actions are normalised."""
        return tokens[..., self.seen].float() * self.scale + self.shift
