"""The page of a sweep as one HTML file: its parts (`document`, `tables`, `masks`), its plots, its style."""
