"""What the record of a sweep shows, as numbers: rows of trials, differences with their intervals, surfaces, compute."""
