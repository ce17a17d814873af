"""Sweeps I-JEPA mask geometries over Ray workers and says which learns the best features per GPU hour."""

__version__ = "0.1.0"
