"""The shape that every engine module has, and the values that it gives."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from atoll.engines.counters import CounterNames, HistogramNames
from atoll.inventory.catalog import GpuKind
from atoll.layout.layout import EngineFlags, Layout, Replica
from atoll.model.card import ModelCard

BLOCK_TOKENS = 16  # tokens of a KV block: vLLM's default on CUDA

SIZES = tuple(range(1, 17))  # tensor-parallel sizes of one box

Release = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class Launch:
    """How to start one replica: a program and its arguments, the variables it needs, and the cores it belongs on."""

    argv: tuple[str, ...]
    env: dict[str, str] = field(default_factory=dict)
    cpus: str | None = None  # "0-31,64-95": cores beside the replica's GPUs; None where the box has one NUMA node


@dataclass(frozen=True, kw_only=True, slots=True)
class SchedulerLimits:
    """The settings that one replica's scheduler obeys, by vLLM's names."""

    max_num_seqs: int = 256
    max_num_batched_tokens: int = 8192
    chunked_prefill: bool = True
    long_prefill_token_threshold: int = 0  # 0: a chunk may take all that is left of the budget
    reserve_full_prompt: bool = True  # scheduler_reserve_full_isl: join only when the whole prompt fits in free blocks
    max_num_queued_reqs: int | None = None  # with so many waiting or running, the next is refused with 503
    async_scheduling: bool = True  # the next step is scheduled while this one runs
    prefill_first: bool = False  # the older engine
    watermark: float = 0.0  # share of the blocks that joining requests leave free; 0.01 in the older engine


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolFacts:
    """How an engine's version lays out KV blocks where layers keep different things."""

    groups: bool = True  # windows and states have blocks of their own; else every layer keeps all tokens
    padding_slack: float = 1.5  # groups take the larger number of layers where it is less than so many times the other
    states_a_sequence: int = 1  # blocks in each group of layers with a state
    steps_ahead: int = 1  # steps that may be under way before blocks behind a window are freed
    state_a_seat: bool = True  # does not start with more seats than blocks, once graphs of decode steps are captured
    prints_concurrency: bool = True  # the size it prints is that of whole sequences of max_model_len


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryFacts:
    """What an engine takes of a GPU beside weights, activations and the KV cache; bytes on each GPU."""

    context_bytes: int  # "non-torch memory": contexts, libraries and what serves a group of GPUs
    graph_bytes: int  # CUDA graphs; 0 where none are captured
    graphs_budgeted: bool  # whether they are part of the budget
    warm_up_bytes: int  # what the start takes beyond budget and graphs
    sampler_bytes: float  # for each (sequence, vocabulary entry) of the largest batch
    sampler_rows: int  # further rows of 32-bit figures as long as the vocabulary
    expert_rounding: tuple[int, int]  # mxfp4: a GPU's part of the experts' width, and the hidden size, to multiples of
    pool: PoolFacts


@dataclass(frozen=True, kw_only=True, slots=True)
class StepFacts:
    """What decides how long an engine's steps take, beside model, card and links."""

    graph_sizes: tuple[int, ...]  # tokens of the steps that are captured as CUDA graphs, rising; () without graphs
    async_scheduling: bool  # the host's part is hidden behind the GPU's
    early_inputs: bool  # input tensors are filled sequence by sequence


class Engine(Protocol):
    """A module or package such as engines/vllm. What depends on the release takes its version as it is written."""

    name: str
    pipeline_parallel: bool  # whether it can spread layers over stages
    program: tuple[str, ...]  # the words before the first argument: vllm serve
    health_path: str
    counters: CounterNames
    histograms: HistogramNames
    emulates: bool  # stands in for an engine: needs no GPU and no weights, and is started beside its layout
    cache_folder: str | None  # in its container; kept when that is replaced, as compiled kernels are

    def image(self, version: str) -> str:
        """The pinned container image of a version."""
        ...

    def launch(self, layout: Layout, replica: Replica, card: ModelCard, *, host: str, port: int) -> Launch:
        """Program, arguments and variables of one replica."""
        ...

    def keep_alive_s(self, version: str) -> float:
        """After how many idle seconds a replica started so closes a connection."""
        ...

    def health_command(self, port: int) -> tuple[str, ...]:
        """What, run in the replica's container, succeeds when it can serve."""
        ...

    def parse_version(self, text: str) -> Release:
        """Three numbers; raises InputError for what is no version of this engine."""
        ...

    def check_version(self, text: str) -> None:
        """Raises InputError, with what is known, for a version that is none or that nobody here knows of."""
        ...

    def fill_flags(
        self, flags: EngineFlags, version: str, kind: GpuKind | None, *, max_model_len: int | None = None
    ) -> EngineFlags:
        """The flags with batch sizes and share of the memory as the engine takes them; None is an unknown card."""
        ...

    def memory_utilization(self, version: str) -> float:
        """The share of a card's memory that it takes where none is asked for."""
        ...

    def cache_dtype(self, flags: EngineFlags, card: ModelCard) -> str:
        """What keys and values are held in; `auto` where they stay as computed."""
        ...

    def caches_prefixes(self, flags: EngineFlags, version: str, card: ModelCard) -> bool:
        """Whether prompts are looked up in a prefix cache, as the engine is started with these flags."""
        ...

    def scheduler_limits(self, flags: EngineFlags, version: str) -> SchedulerLimits:
        """The scheduler's settings under flags that are filled in."""
        ...

    def memory_facts(
        self,
        flags: EngineFlags,
        version: str,
        card: ModelCard,
        kind: GpuKind,
        *,
        tensor: int = 1,
        pipeline: int = 1,
        from_image: bool = True,
    ) -> MemoryFacts:
        """What it takes of such a GPU's memory for itself, under flags that are filled in, run from its own image."""
        ...

    def step_facts(self, flags: EngineFlags, version: str, kind: GpuKind) -> StepFacts:
        """How its steps are run, under flags that are filled in."""
        ...

    def why_not_flags(self, flags: EngineFlags, *, max_model_len: int | None = None) -> str | None:
        """Why it would not start with these options, on a model of that context; None when it would."""
        ...

    def why_not_on(self, card: ModelCard, kind: GpuKind) -> str | None:
        """Why this kind of GPU cannot run the model, one sentence; None when it can."""
        ...

    def why_not_split(self, card: ModelCard, tensor_parallel: int, *, expert_parallel: bool = False) -> str | None:
        """Why it cannot split the model over so many GPUs, one sentence; None when it can."""
        ...

    def why_whole_experts(self, card: ModelCard, tensor_parallel: int) -> str | None:
        """Why the model can be split so only with expert parallelism, the end of a sentence; None when it need not."""
        ...

    def legal_tensor_parallel(self, card: ModelCard, sizes: Sequence[int] = SIZES) -> tuple[int, ...]:
        """Those of the sizes that it can split the model into, rising."""
        ...

    def explain_sizes(self, card: ModelCard, sizes: Sequence[int] = SIZES) -> str:
        """`legal sizes are 1, 2, 4 and 8`, the end of a sentence that refuses another one."""
        ...


def is_path(model: str) -> bool:
    """Whether a layout's model is a folder and not a name."""
    return model.startswith(("/", ".", "~"))


def loaded_name(layout: Layout, card: ModelCard) -> str:
    """What an engine loads: a folder as the layout names it, otherwise the hub's full name.

    A layout may say `qwen2.5-32b-instruct`, which atoll knows and the hub does not.
    """
    return layout.model if is_path(layout.model) else card.name


def served_name(card: ModelCard) -> str:
    """The name that requests ask for."""
    return card.name
