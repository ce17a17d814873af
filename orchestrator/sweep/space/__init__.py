"""From a search space to trials (`points`), and from a point back to its place in the space (`places`)."""
