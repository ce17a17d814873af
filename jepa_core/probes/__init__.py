"""Probes: frozen features and labels in, accuracy out."""
