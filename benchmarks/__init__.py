"""Measurements of atoll itself: ratios against a peer or a baseline of the same run, in CPU-seconds."""
