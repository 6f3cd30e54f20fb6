"""A Diffusion Forcing planner behind an HTTP endpoint."""

__version__ = "0.1.0"
