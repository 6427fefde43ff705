"""How many GPUs a model is split over."""

from collections.abc import Iterable

from atoll.doctor.checks.memory import Placement, placements
from atoll.doctor.checks.places import found
from atoll.doctor.facts import Facts, Load
from atoll.doctor.finding import Finding
from atoll.doctor.planned import of_sizes, planned_fix
from atoll.doctor.rule import INFO, WARNING, rule
from atoll.inventory.islands import best_split

SUPPORTED_SIZES = (2, 4, 6, 8, 16)  # of vLLM's own all-reduce, custom_all_reduce.py of 0.32.0


@rule("TP003", INFO)
def odd_size(facts: Facts) -> Iterable[Finding]:
    for placed in placements(facts):
        if placed.tensor_parallel == 1 or placed.tensor_parallel in SUPPORTED_SIZES:
            continue
        fix = planned_fix(facts, placed.place.file, of_sizes((1, *SUPPORTED_SIZES)))
        if fix is not None:
            yield found(
                placed.split, f"vLLM's own all-reduce has no tensor-parallel size of {placed.tensor_parallel}", fix=fix
            )


# A replica is called large enough when it holds so many tokens: 64 requests of 2 k, the length below which four fifths
# of public traffic stay (https://arxiv.org/html/2604.09613v1).
ENOUGH_TOKENS = 64 * 2048


@rule("TP006", WARNING)
def wider_than_needed(facts: Facts) -> Iterable[Finding]:
    for placed in placements(facts):
        half = placed.tensor_parallel // 2
        if placed.tensor_parallel % 2 or half < 1 or placed.ours:
            continue
        fit = placed.fit(half)
        wanted = max(_wanted_tokens(facts.load_at(placed.place.file)), placed.flags.max_model_len or 0)
        if fit is None or not fit.fits or fit.kv_tokens < wanted:
            continue
        fix = planned_fix(facts, placed.place.file, of_sizes(range(1, placed.tensor_parallel)))
        if fix is None:
            continue
        yield found(
            placed.split,
            f"{placed.name} spreads {_model_name(placed)} over {placed.tensor_parallel} GPUs; {half} hold it with room"
            f" for {fit.kv_tokens:,} tokens",
            fix=fix or _halved(placed, half),
        )


def _wanted_tokens(load: Load) -> int:
    if load.users is not None and load.prompt_tokens is not None and load.output_tokens is not None:
        return load.users * (load.prompt_tokens + load.output_tokens)
    return ENOUGH_TOKENS


def _model_name(placed: Placement) -> str:
    return placed.card.name if placed.card is not None else "the model"


def _halved(placed: Placement, half: int) -> str:
    gpus, box = placed.gpus, placed.box
    where = ""
    if box is not None and gpus is not None and set(gpus) == set(box.indices) and len(gpus) % half == 0:
        where = ": " + " ".join(str(list(group)) for group in best_split(box, half))
    count = (len(gpus) if gpus is not None else placed.tensor_parallel) // half
    return f"{count} replicas of TP {half}{where}, behind nginx with least_conn; compare both with a load test."
