"""Colours that all pictures share: ink on paper, what went well or badly, and levels of noise."""

import matplotlib
import numpy as np
from matplotlib.colors import ListedColormap, Normalize

PAPER, INK, MUTED = "#ffffff", "#1c2430", "#66707c"
GOOD, BAD = "#15803d", "#b91c1c"
# Perceptually uniform, without the end that would be too light on a white floor.
NOISE_COLORS = ListedColormap(matplotlib.colormaps["plasma"](np.linspace(0.0, 0.86, 256)), name="noise")
NOISE_NORM = Normalize(0.0, 1.0)
