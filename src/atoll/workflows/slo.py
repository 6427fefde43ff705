"""Latency targets as a command line gives them."""

from atoll.analyse.summary import SLO
from atoll.units import parse_seconds


def slo_of(ttft: str | None, tpot: str | None) -> SLO | None:
    if ttft is None and tpot is None:
        return None
    return SLO(
        ttft_s=None if ttft is None else parse_seconds(ttft), tpot_s=None if tpot is None else parse_seconds(tpot)
    )
