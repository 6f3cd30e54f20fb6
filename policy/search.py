"""Tree search over partly denoised plans: expand by fresh noise, judge by the guess of the clean plan, prune, repeat.

A node is a row of a `PlanState` at one row of the scheduling matrix, with the network's guess of its clean tokens.
That guess costs nothing more: the pass that takes a node further makes it, and it is a whole plan to be judged by
(the jump-ahead of Monte-Carlo tree diffusion, Yoon et al. 2025, arXiv:2502.07202). Knows nothing of goals, units or
horizons.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from forcing.policy.ancestral import stochastic_step
from forcing.policy.guidance import Guidance
from forcing.policy.noise import ddim_step
from forcing.policy.sampler import Model, PlanState, denoise_step

LevelsAt = Callable[[PlanState, int], Tensor]
"""(state, row of the scheduling matrix) -> [B, L, S] the levels of the state's rows there."""
Cost = Callable[[PlanState], NDArray[np.float64]]
"""(state with x0_hat) -> [B] what each row's guess would cost as a plan, lower is better."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchConfig:
    """How much is searched, and how.

    budget: network passes a plan may take, gradients included. A pass is one call of the network, with at most as
    many rows as the search has roots. children: rows that a node which is kept becomes; the others of a row of the
    tree wait for a later descent. eta: share of fresh noise by which children of one node differ, 0 none to 1 the
    ancestral step.
    """

    budget: int = 16
    children: int = 4
    eta: float = 1.0

    def __post_init__(self) -> None:
        for name in ("budget", "children"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.eta <= 1:
            raise ValueError(f"eta must be between 0 and 1, got {self.eta}")


@dataclass(frozen=True, slots=True)
class Found:
    """state: the best plans, at most as many as there were roots, best first, after the last row that was
    reached. passes: network calls made. rows: rows evaluated in them, those of gradients not counted.
    """

    state: PlanState
    passes: int
    rows: int


def search(
    model: Model,
    roots: PlanState,
    depth: int,
    levels_at: LevelsAt,
    cost: Cost,
    config: SearchConfig,
    guide: Guidance | None = None,
) -> Found:
    """The best plans found within the budget, from `roots`, pure noise wherever something is to be planned.

    One descent takes `depth` passes, one for each row of the scheduling matrix but the last. In each, the best open
    nodes of the row above become children until there are as many rows as roots, and what was not expanded stays
    open. Roots are all expanded, in every descent: of pure noise there is nothing to judge. While passes are left
    another descent follows, from the roots, or from as deep as needed to end at the leaves. With fewer passes
    than `depth`, the plans are the guesses of the deepest row reached. The same generator gives the same plans.
    Raises ValueError if the budget does not suffice for one guided pass.
    """
    tree = _Tree(model, levels_at, cost, config, guide, width=len(roots.tokens))
    if not tree.evaluate(0, roots):
        raise ValueError(f"budget must allow for one pass and its gradient, got {config.budget}; raise it")
    start: int | None = 1
    while start is not None:
        for row in range(start, depth):
            if not tree.descend(row):
                return tree.found()
        start = tree.next_start()
    return tree.found()


@dataclass(frozen=True, slots=True)
class _Nodes:
    """Nodes of one row of the tree, best first. cost: [B], rising."""

    state: PlanState
    cost: NDArray[np.float64]

    def __getitem__(self, rows: NDArray[np.int64]) -> "_Nodes":
        return _Nodes(self.state.rows(torch.from_numpy(rows)), self.cost[rows])


class _Tree:
    """Open nodes of each row so far, and what was spent on them."""

    def __init__(
        self, model: Model, levels_at: LevelsAt, cost: Cost, config: SearchConfig, guide: Guidance | None, width: int
    ) -> None:
        self.model, self.levels_at, self.cost, self.config = model, levels_at, cost, config
        self.guide, self.width = guide, width
        self.open: list[_Nodes] = []
        self.prices: list[int] = []
        self.passes, self.rows = 0, 0

    def evaluate(self, row: int, state: PlanState) -> bool:
        """Adds nodes to a row; False, and nothing done, if the budget does not allow it."""
        following = self.levels_at(state, row + 1)
        price = 1 + (0 if self.guide is None else self.guide.passes(state, following < state.levels))
        if self.passes + price > self.config.budget:
            return False
        state = replace(state, x0_hat=denoise_step(self.model, state, following, self.guide).x0_hat)
        self.passes, self.rows = self.passes + price, self.rows + len(state.tokens)
        cost = self.cost(state)
        if row == len(self.open):
            self.prices.append(price)
            self.open.append(_best(_Nodes(state, cost), self.width))
        else:
            before = self.open[row]
            both = _Nodes(before.state.joined(state), np.concatenate([before.cost, cost]))
            self.open[row] = _best(both, self.width)
        return True

    def descend(self, row: int) -> bool:
        """Fills a row with children of the best open nodes above, which are open no longer (roots stay).

        False, and nothing done, if there are none or the budget does not allow it.
        """
        nodes = self.open[row - 1]
        following = self.levels_at(nodes.state, row)
        counts = np.where(self._branches(nodes.state.levels, following), self.config.children, 1)
        if row == 1:
            counts = np.ones_like(counts)
        taken = int((np.cumsum(counts) - counts < self.width).sum())
        parents = torch.from_numpy(np.repeat(np.arange(taken), counts[:taken])[: self.width])
        if taken == 0:
            return False
        children = _children(self.model, nodes.state.rows(parents), following[parents], self.config.eta)
        if not self.evaluate(row, children):
            return False
        if row > 1:
            self.open[row - 1] = nodes[np.arange(taken, len(nodes.cost))]
        return True

    def _branches(self, levels: Tensor, following: Tensor) -> NDArray[np.bool_]:
        """[B] whether any noise enters on the way; where none does, children would be copies of each other."""
        noisy = (following < levels) & (following > 0) & ((levels >= 1) | (self.config.eta > 0))
        return noisy.flatten(1).any(dim=1).numpy()

    def next_start(self) -> int | None:
        """The row from which another descent still reaches the leaves, the nearest to the roots; None if none does."""
        left = self.config.budget - self.passes
        rows = (row for row in range(1, len(self.open)) if sum(self.prices[row:]) <= left)
        return next(rows, None)

    def found(self) -> Found:
        deepest = self.open[-1].state
        assert deepest.x0_hat is not None
        levels = self.levels_at(deepest, len(self.open))
        before, after = deepest.levels[..., self.model.features], levels[..., self.model.features]
        tokens = ddim_step(deepest.tokens, deepest.x0_hat, before, after, self.model.schedule)
        return Found(replace(deepest, tokens=tokens, levels=levels), self.passes, self.rows)


def _children(model: Model, parents: PlanState, following: Tensor, eta: float) -> PlanState:
    """One child for each row of `parents`, at the levels `following`, not yet evaluated.

    What is pure noise in the parent says nothing of the child's future, so it is drawn anew whatever eta.
    """
    assert parents.x0_hat is not None
    level, lower = parents.levels[..., model.features], following[..., model.features]
    shape, generator = parents.tokens.shape, parents.generator
    fresh, noise = (torch.randn(shape, generator=generator).to(parents.tokens) for _ in range(2))
    tokens = torch.where(level >= 1, fresh, parents.tokens)
    moved = stochastic_step(tokens, parents.x0_hat, level, lower, model.schedule, eta, noise)
    return replace(parents, tokens=moved, levels=following, x0_hat=None)


def _best(nodes: _Nodes, count: int) -> _Nodes:
    return nodes[np.argsort(nodes.cost, kind="stable")[:count]]
