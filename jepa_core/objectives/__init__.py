"""Pre-training objectives: each is one file behind the protocol in `base`."""
