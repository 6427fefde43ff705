"""Outlooks with every figure chosen."""

from typing import Any

from atoll.analyse.summary import Distribution, RequestCounts, Summary
from atoll.plan.outlook import Outlook


def even(seconds: float) -> Distribution:
    """The same for every request."""
    return Distribution(mean=seconds, p50=seconds, p90=seconds, p95=seconds, p99=seconds, max=seconds)


def flat(seconds: float, *, simulated: bool = False, saturated: bool = False, **changes: Any) -> Outlook:
    """All times alike and one request a second, but for the fields of the summary that are changed."""
    summary: dict[str, Any] = {
        "requests": RequestCounts(sent=0, ok=0, failed=0, cancelled=0),
        "duration_s": 0.0,
        **dict.fromkeys(("ttft_s", "itl_s", "tpot_s", "e2e_s"), even(seconds)),
        **dict.fromkeys(("requests_per_s", "output_tokens_per_s", "total_tokens_per_s"), 1.0),
        **changes,
    }
    return Outlook(summary=Summary(**summary), simulated=simulated, saturated=saturated)
