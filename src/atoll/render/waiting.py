"""How long a replica may take until it serves."""

from math import ceil

from atoll.model.card import ModelCard


def start_period_s(card: ModelCard) -> int:
    """How long a replica may load before a failed health check counts, in whole minutes.

    Five minutes for start, compilation and graph capture, and the weights at 100 MB/s, a slow network disk: 65.5 GB
    give 5 + 10.9 = 16 minutes. At least 10. A replica that is healthy earlier is healthy earlier.
    """
    return max(600, 60 * ceil((300 + card.weight_bytes / 100e6) / 60))
