"""How well a policy tells disturbed frames from others, by how surprising they are to it.

A frame is flagged if less than one recorded frame in a thousand was as unlikely, whatever the policy does about it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from forcing.eval.rollout import Episode

FLAGGED = 3.0  # -log10 of the share of recorded readings that were as unlikely


def detection(episodes: Sequence[Episode], cameras: Sequence[str]) -> dict[str, Any] | None:
    """precision, recall: of flags, against what the environment says of each frame; None where there was nothing to
    divide by. false_alarms: share of undisturbed frames that were flagged. frames, disturbed: how many that the policy
    could judge. None if it judges none."""
    told = [
        (surprise[camera] > FLAGGED, camera in distracted)
        for episode in episodes
        for surprise, distracted in zip(episode.trace.surprise, episode.distracted, strict=False)
        for camera in cameras
        if camera in surprise
    ]
    if not told:
        return None
    flagged, disturbed = np.array(told).T
    return {
        "frames": len(told),
        "disturbed": int(disturbed.sum()),
        "precision": _share(disturbed[flagged]),
        "recall": _share(flagged[disturbed]),
        "false_alarms": _share(flagged[~disturbed]),
    }


def _share(of: Any) -> float | None:
    return float(np.mean(of)) if len(of) else None
