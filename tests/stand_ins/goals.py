"""Goals of plain numbers."""

from typing import Any

from atoll.plan.goal import Favour, Goal
from atoll.traffic.slo import SLO
from atoll.traffic.workload import Workload


def plain_goal(
    *,
    slo_ttft_s: float | None = None,
    slo_tpot_s: float | None = None,
    favour: Favour = Favour.ANSWER,
    **load: Any,
) -> Goal:
    """The rest is the workload's; a rate takes the place of users."""
    known = {name: value for name, value in load.items() if value is not None}
    return Goal(workload=Workload(**known), slo=SLO(ttft_s=slo_ttft_s, tpot_s=slo_tpot_s), favour=favour)
