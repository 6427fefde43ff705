"""Measurements of atoll itself: ratios against a peer or a baseline in the same run, CPU-seconds rather than wall time."""
