"""What only the lerobot package can say; runs in an environment that has it, and uses nothing else of ours.

python with_lerobot.py write FOLDER image|video    a small dataset (0.3.3 writes v2.1, 0.4.4 writes v3.0)
python with_lerobot.py read FOLDER OUT.npz         every row of a dataset as LeRobotDataset gives it out
"""

import sys
from typing import Any

import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset

CAMERA = "observation.images.wrist-cam"
FEATURES: dict[str, dict[str, Any]] = {
    "observation.state": {"dtype": "float32", "shape": (3,), "names": ["x", "y", "z"]},
    CAMERA: {"dtype": "image", "shape": (48, 64, 3), "names": ["height", "width", "channels"]},
    "observation.force": {"dtype": "float64", "shape": (2, 3), "names": None},
    "action": {"dtype": "float32", "shape": (2,), "names": ["dx", "dy"]},
    "next.reward": {"dtype": "float32", "shape": (1,), "names": None},
    "next.done": {"dtype": "bool", "shape": (1,), "names": None},
}


def write(folder: str, kind: str) -> None:
    """Row i of episode e is made of t = 100 e + i alone."""
    features = {**FEATURES, CAMERA: {**FEATURES[CAMERA], "dtype": kind}}
    dataset = LeRobotDataset.create(
        "me/small", fps=10, features=features, root=folder, use_videos=kind == "video", robot_type="so100"
    )
    for episode, rows in enumerate((12, 7, 9)):
        for i in range(rows):
            t = 100 * episode + i
            frame = {
                "observation.state": np.array([t, -t, t / 8], np.float32),
                CAMERA: np.full((48, 64, 3), (10 * i, 60 * episode, 128), np.uint8),
                "observation.force": np.arange(6.0).reshape(2, 3) + t / 3,
                "action": np.array([t, t + 0.5], np.float32),
                "next.reward": np.array([t / 4], np.float32),
                "next.done": np.array([i == rows - 1]),
            }
            task = ["stack the cups", "open the drawer"][episode % 2]
            if hasattr(dataset, "finalize"):
                dataset.add_frame({**frame, "task": task})
            else:
                dataset.add_frame(frame, task=task)
        dataset.save_episode()
    if hasattr(dataset, "finalize"):
        dataset.finalize()


def read(folder: str, out: str) -> None:
    """Features as [N, *shape], frames as uint8 [N, h, w, c], and the task of each row."""
    dataset = LeRobotDataset("me/small", root=folder)
    rows = [dataset[i] for i in range(len(dataset))]
    columns: dict[str, Any] = {"task": np.array([row["task"] for row in rows]), "fps": dataset.fps}
    for key, feature in dataset.features.items():
        values = np.stack([row[key].numpy() for row in rows])
        if feature["dtype"] in ("image", "video"):
            values = np.round(values.transpose(0, 2, 3, 1) * 255).astype(np.uint8)
        columns[key] = values
    np.savez(out, **columns)


if __name__ == "__main__":
    {"write": write, "read": read}[sys.argv[1]](*sys.argv[2:])
