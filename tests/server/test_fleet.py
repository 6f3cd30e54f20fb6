"""Several robots at once: none notices the others in what it is told to do."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from forcing.policy.policy import Policy
from forcing.policy.rolling import RollingConfig
from forcing.server.client import Client
from forcing.server.serve import serving
from forcing.server.service import ServerSettings

STEPS = 24


def _driven(url: str, seed: int) -> np.ndarray:
    """[STEPS, 2] actions of a robot that is moved by them; every plan is waited for."""
    at = np.array([0.1 * seed, -0.2])
    with Client(url) as client, client.open("tiny", goal=[1.0, 1.0], seed=seed, stream=seed % 2 == 0) as session:
        actions = []
        for _ in range(STEPS):
            actions.append(session.act({"position": at, "velocity": np.zeros(2)}).action)
            at = at + 0.01 * actions[-1]
    return np.array(actions)


def test_the_same_seed_gives_the_same_actions_whoever_else_is_served(policy: Policy) -> None:
    rolling = policy.using(rolling=RollingConfig(variants=2))
    for served, settings in (
        (rolling, ServerSettings(batch=4)),
        (rolling, ServerSettings(batch=4, processes=True)),
        (policy, ServerSettings()),
    ):
        with serving([served], settings=settings) as url:
            alone = [_driven(url, seed) for seed in range(6)]
            with ThreadPoolExecutor(6) as robots:
                together = list(robots.map(lambda seed, url=url: _driven(url, seed), range(6)))
        # To rounding in float32: plans that are made together share a product of matrices.
        np.testing.assert_allclose(together, alone, atol=1e-4)
        assert not np.allclose(alone[0], alone[1]), "seeds differ"
