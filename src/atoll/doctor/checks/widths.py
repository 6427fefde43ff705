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
    """A tensor-parallel size other than 2, 4, 6, 8 or 16.

    Consequence: vLLM's own all-reduce does not know it: NCCL does everything.

    Evidence: vLLM 0.32.0, custom_all_reduce.py, _SUPPORTED_WORLD_SIZES.

    Fix: Take a size that it knows.

    Fails:
    ```compose.yaml
    services:
      vllm: {image: "vllm/vllm-openai:v0.32.0", command: [m/model, -tp, "3"]}
    ```

    Passes:
    ```compose.yaml
    services:
      vllm: {image: "vllm/vllm-openai:v0.32.0", command: [m/model, -tp, "4"]}
    ```
    """
    for placed in placements(facts):
        if placed.tensor_parallel == 1 or placed.tensor_parallel in SUPPORTED_SIZES:
            continue
        fix = planned_fix(facts, placed.place.file, of_sizes((1, *SUPPORTED_SIZES)))
        if fix is not None:
            yield found(placed.split, f"a tensor-parallel size of {placed.tensor_parallel}", fix=fix)


# A replica is called large enough when it holds so many tokens: 64 requests of 2 k, the length below which four fifths
# of public traffic stay (https://arxiv.org/html/2604.09613v1).
ENOUGH_TOKENS = 64 * 2048


@rule("TP006", WARNING)
def wider_than_needed(facts: Facts) -> Iterable[Finding]:
    """A model is split over more GPUs than it needs.

    Consequence: An all-reduce in every layer for memory that was not short. Where one half holds the model and its KV
    cache, two replicas serve more.

    Evidence: https://github.com/vllm-project/vllm/issues/12470, https://github.com/vllm-project/vllm/issues/1435;
    the arithmetic of vLLM's own start-up check.

    Fix: Half the tensor-parallel size and twice the replicas; compare both with a load test (`atoll plan`, `atoll
    study`).

    Fails:
    ```topo.txt
            GPU0  GPU1  GPU2  GPU3
    GPU0    X     NV12  SYS   SYS
    GPU1    NV12  X     SYS   SYS
    GPU2    SYS   SYS   X     NV12
    GPU3    SYS   SYS   NV12  X
    ```
    ```options
    gpu: H100-NVL-94GB
    ```
    ```compose.yaml
    services:
      vllm:
        image: vllm/vllm-openai:v0.32.0
        command: [Qwen/Qwen2.5-32B-Instruct, --tensor-parallel-size, "4", --max-model-len, "16384"]
        gpus: all
    ```

    Passes:
    ```topo.txt
            GPU0  GPU1
    GPU0    X     NV12
    GPU1    NV12  X
    ```
    ```options
    gpu: H100-NVL-94GB
    ```
    ```compose.yaml
    services:
      vllm:
        image: vllm/vllm-openai:v0.32.0
        command: [Qwen/Qwen2.5-72B-Instruct, --tensor-parallel-size, "2", --max-model-len, "16384"]
        gpus: all
    ```
    """
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
