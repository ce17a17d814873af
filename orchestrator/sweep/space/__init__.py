"""From a search space to trials (`points`), and from a point back to its coordinates in the space (`units`)."""
