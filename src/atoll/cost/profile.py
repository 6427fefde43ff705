"""A machine profile: what calibration found on one machine, kept as a document and used instead of the catalogue."""

from typing import ClassVar

from pydantic import Field, model_validator

from atoll.cost.links import TransferCurve
from atoll.documents import Document


class MeasuredReduce(Document):
    """All-reduce of one group of GPUs as measured: (bytes, seconds), sizes rising."""

    gpus: tuple[int, ...] = Field(min_length=2)
    points: tuple[tuple[float, float], ...] = Field(min_length=1)
    source: str = ""  # the program and its version

    @model_validator(mode="after")
    def _sizes_rise(self) -> "MeasuredReduce":
        sizes = [size for size, _ in self.points]
        if any(not 0 < value < 1e18 for point in self.points for value in point) or sizes != sorted(set(sizes)):
            raise ValueError("points are (bytes, seconds) above 0, sizes rising")
        return self

    @property
    def curve(self) -> TransferCurve:
        return TransferCurve(points=self.points, source=self.source)


class Line(Document):
    """Step time of one engine without a catalogue behind it, for cards that no table knows (a CPU, for one).

    seconds = step_s + per_decode_s * decodes + per_context_token_s * their total context
            + per_prompt_token_s * new prompt tokens + per_pair_s * (new token, token it looks at) pairs
    """

    tensor_parallel: int = 1  # a line knows nothing about other splits
    step_s: float = Field(ge=0)
    per_decode_s: float = Field(default=0.0, ge=0)
    per_prompt_token_s: float = Field(default=0.0, ge=0)
    per_pair_s: float = Field(default=0.0, ge=0)
    per_context_token_s: float = Field(default=0.0, ge=0)

    def prompt_seconds(self, tokens: int, past: int) -> float:
        """A chunk of `tokens` new tokens after `past` cached ones, without the step's own time."""
        return self.per_prompt_token_s * tokens + self.per_pair_s * tokens * (past + tokens / 2)


class MachineProfile(Document):
    """Corrections to the step model. A `*_time` of 1.1 makes that part take a tenth longer than the catalogue says."""

    noun: ClassVar[str] = "a machine's profile"

    name: str = "machine"
    gpu: str | None = None  # the catalogue's name of the card it was measured on
    engine: str | None = None  # "vllm 0.32.0"
    weights_time: float = Field(default=1.0, gt=0)  # GEMMs of decode steps, which read weights
    compute_time: float = Field(default=1.0, gt=0)  # GEMMs and attention of prompts, which compute
    attention_time: float = Field(default=1.0, gt=0)  # decode attention, which reads the KV cache
    link_time: float = Field(default=1.0, gt=0)  # all-reduce, where no curve was measured
    host_step_s: float | None = Field(default=None, ge=0)  # None: the catalogue's
    host_sequence_s: float | None = Field(default=None, ge=0)
    front_s: float | None = Field(default=None, ge=0)  # HTTP, tokeniser, queues: outside the engine's steps
    reduces: tuple[MeasuredReduce, ...] = ()
    line: Line | None = None
    fit_error: float | None = None  # mean absolute relative error over the measured points
    points: int | None = None  # how many points were fitted
    notes: tuple[str, ...] = ()

    def reduce_curve(self, gpus: tuple[int, ...]) -> TransferCurve | None:
        """The measured curve of exactly this group, in any order."""
        wanted = sorted(gpus)
        return next((reduce.curve for reduce in self.reduces if sorted(reduce.gpus) == wanted), None)
