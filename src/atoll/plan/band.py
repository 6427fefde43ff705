"""How far off a prediction may be: the error that `atoll validate` found on measured rows of the nearest family.

The figures are mean absolute errors of the time of a whole answer over the public rows, rounded up: what they say of
one layout holds roughly for its difference to another.
"""

from atoll.inventory.catalog import GpuKind
from atoll.model.card import ModelCard
from atoll.plan.search import Choice
from atoll.plan.workbench import Workbench

# Hopper SXM, dense, closed loop: Qwen3-32B bf16 1.9 %, Llama-3.1-70B fp8 1.8 %, Qwen3-8B bf16 1.3 %, tt143 6.6 %.
HOPPER_SXM = 0.07
# ... and a mixture of experts: gpt-oss-120b 4 % on the H200, 15 % on the H100.
HOPPER_SXM_EXPERTS = 0.15
# H100 PCIe, seven models, open loop: 9 %. The H100 NVL and the GH200 have no rows of their own and scale likewise.
HOPPER_OTHER = 0.10
AMPERE_SXM = 0.15  # A100 SXM, Qwen3 14B to 235B, saturated: 14 %
ADA = 0.22  # RTX 4090, 1 to 8 cards: 21 %
UNMEASURED = 0.25
# A group whose ring crosses from one NVLink island to another: the all-reduce was measured on one such box alone.
CROSSING = 0.25


def error_band(choice: Choice, workbench: Workbench) -> float:
    """Relative error to reckon with: 0.1 says that the truth may well be a tenth more or less."""
    kinds = {workbench.kind(replica).name: workbench.kind(replica) for replica in choice.layout.replicas}
    band = max(_of_kind(kind, workbench.card) for kind in kinds.values())
    groups = [workbench.timer(replica, choice.layout.flags).reduce.group for replica in choice.layout.replicas]
    return max(band, CROSSING) if any(group.mixed for group in groups) else band


def _of_kind(kind: GpuKind, card: ModelCard) -> float:
    if kind.architecture == "hopper" and "-SXM-" in kind.name:
        return HOPPER_SXM if card.experts is None else HOPPER_SXM_EXPERTS
    if kind.architecture == "hopper":
        return HOPPER_OTHER if card.experts is None else HOPPER_SXM_EXPERTS
    if kind.name.startswith("A100-SXM"):
        return AMPERE_SXM
    return ADA if kind.architecture == "ada" else UNMEASURED
