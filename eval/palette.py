"""Colours that all pictures share: ink on paper, and levels of noise."""

import matplotlib
import numpy as np
from matplotlib.colors import ListedColormap, Normalize

INK, MUTED = "#1c2430", "#66707c"
# Perceptually uniform, without the end that would be too light on a white floor.
NOISE_COLORS = ListedColormap(matplotlib.colormaps["plasma"](np.linspace(0.0, 0.86, 256)), name="noise")
NOISE_NORM = Normalize(0.0, 1.0)
