"""Options that mean the same in every command. A command takes those it needs: `box: BoxFile = None`.

Those that say the load go together: a command that is decorated with `takes_load` has them all; so do those of the
engine, with `takes_engine`.
"""

import inspect
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from atoll.errors import InputError
from atoll.outside.shell import environment
from atoll.workflows.engine_options import EngineOptions
from atoll.workflows.load import LoadOptions

LANGUAGES = ("en", "ko")
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else there.")]
BoxFile = Annotated[
    str | None, typer.Option("--box", metavar="FILE", help="A capture of `nvidia-smi topo -m`; - reads standard input.")
]
GpuName = Annotated[str | None, typer.Option("--gpu", metavar="NAME", help="GPU kind, such as H100-NVL-94GB.")]
GpuCount = Annotated[int | None, typer.Option("--gpus", min=1, metavar="N", help="How many GPUs, without a capture.")]
TensorParallel = Annotated[int | None, typer.Option("--tp", min=1, metavar="N", help="Tensor-parallel size.")]
Replicas = Annotated[int | None, typer.Option("--replicas", min=1, metavar="N", help="How many engines.")]
PolicyName = Annotated[
    str | None,
    typer.Option(
        "--policy",
        metavar="P",
        help="round_robin, least_conn, random_two_least_conn, per_island, session_affinity, prefix_affinity.",
    ),
]
ModelName = Annotated[
    str | None, typer.Option("--model", metavar="M", help="A model's name, a folder with config.json, or that file.")
]
Users = Annotated[int | None, typer.Option("--users", "-u", min=1, metavar="N", help="Users that send back to back.")]
Duration = Annotated[str | None, typer.Option("--duration", "-t", metavar="D", help="Send for so long: 10m, 90s.")]
SloTtft = Annotated[str | None, typer.Option("--slo-ttft", metavar="D", help="Longest wanted time to first token.")]
SloTpot = Annotated[str | None, typer.Option("--slo-tpot", metavar="D", help="Longest wanted time per output token.")]
Profile = Annotated[
    Path | None,
    typer.Option("--profile", metavar="FILE", help="What `atoll calibrate -o FILE` found on the machine."),
]
OutPath = Annotated[Path | None, typer.Option("-o", "--out", metavar="PATH", help="Where to write.")]
Force = Annotated[bool, typer.Option("--force", help="Overwrite what is there.")]
FailIf = Annotated[
    list[str] | None,
    typer.Option(
        "--fail-if", metavar="GATE", help="Exit 1 when it holds: 'failed > 1%', 'good < 95%', 'ttft_p95 > 250ms'."
    ),
]
Junit = Annotated[
    Path | None, typer.Option("--junit", metavar="FILE", help="Write what became of the gates, for a build server.")
]
ApiKeyFile = Annotated[
    Path | None,
    typer.Option("--api-key-file", metavar="FILE", help="A file with the key; `ps` shows that of --api-key to all."),
]
Language = Annotated[
    str | None, typer.Option("--lang", metavar="en|ko", help="Language of what is said; without it LANG decides.")
]
EngineKind = Annotated[str, typer.Option("--engine", metavar="E", help="simulated, emulated or vllm.")]

# What says the load. Without any of them it is that of the layout, bundle or study; where none is written, 30 users
# with prompts of 1024 and answers of 512 tokens for ten minutes.
_LOAD: dict[str, Any] = {
    "users": Users,
    "rate": Annotated[float | None, typer.Option("--rate", metavar="R", help="Requests per second, open loop.")],
    "requests": Annotated[
        int | None, typer.Option("--requests", min=1, metavar="N", help="Stop after so many requests.")
    ],
    "duration": Duration,
    "warmup": Annotated[
        str | None,
        typer.Option(
            "--warmup", metavar="D", help="Sum up what is sent after this time, not after the first round of all users."
        ),
    ],
    "start": Annotated[
        str | None,
        typer.Option(
            "--start", metavar="S", help="When users start: spread (over the time of one answer), at_once, or over 45s."
        ),
    ],
    "ramp": Annotated[str | None, typer.Option("--ramp", metavar="D", help="The same as --start with a duration.")],
    "prompt": Annotated[
        str | None,
        typer.Option("--prompt", metavar="TOKENS", help="Prompt length: 1024, 200-2000 or lognormal:1024:1."),
    ],
    "output": Annotated[str | None, typer.Option("--output", metavar="TOKENS", help="Answer length, written alike.")],
    "seed": Annotated[
        int | None, typer.Option("--seed", metavar="N", help="The same seed gives the same requests; 1 without it.")
    ],
    "think": Annotated[
        str | None, typer.Option("--think", metavar="D", help="Pause of a user between answer and next request.")
    ],
    "arrivals": Annotated[
        str | None, typer.Option("--arrivals", metavar="A", help="With --rate: poisson (default), constant, bursty.")
    ],
    "burstiness": Annotated[
        float | None, typer.Option("--burstiness", metavar="B", help="Of bursty arrivals; below 1 is bursty.")
    ],
    "shared_prefix": Annotated[
        int | None, typer.Option("--shared-prefix", min=0, metavar="TOKENS", help="Beginning that all prompts share.")
    ],
    "turns": Annotated[
        int | None,
        typer.Option("--turns", min=1, metavar="N", help="Requests of a session, each carrying the ones before."),
    ],
}


# What says the engine's settings, with vLLM's meaning; one that is left out has the default of that version.
_ENGINE: dict[str, Any] = {
    "gpu_memory_utilization": Annotated[
        float | None, typer.Option("--gpu-memory-utilization", metavar="SHARE", help="vLLM's share of a card's memory.")
    ],
    "max_model_len": Annotated[
        int | None, typer.Option("--max-model-len", min=1, metavar="TOKENS", help="Longest prompt and answer together.")
    ],
    "max_num_seqs": Annotated[
        int | None, typer.Option("--max-num-seqs", min=1, metavar="N", help="Answers that run at once in an engine.")
    ],
    "max_num_batched_tokens": Annotated[
        int | None, typer.Option("--max-num-batched-tokens", min=1, metavar="N", help="Tokens of a step at most.")
    ],
    "kv_cache_dtype": Annotated[
        str | None,
        typer.Option("--kv-cache-dtype", metavar="T", help="auto, as the checkpoint says, or fp8; plan: either, too."),
    ],
    "quantization": Annotated[
        str | None, typer.Option("--quantization", metavar="Q", help="Quantise while loading: fp8, bitsandbytes.")
    ],
    "pp": Annotated[int | None, typer.Option("--pp", min=1, metavar="N", help="Pipeline stages of an engine.")],
    "enforce_eager": Annotated[
        bool | None, typer.Option("--enforce-eager", help="Without CUDA graphs.", show_default=False)
    ],
    "engine_version": Annotated[
        str | None, typer.Option("--engine-version", metavar="V", help="vLLM's version, which sets defaults.")
    ],
}


def spoken(asked: str | None) -> str:
    """`en` or `ko`: what was asked for, else Korean where the terminal's messages are, else English."""
    if asked is not None:
        if asked not in LANGUAGES:
            raise InputError(f"--lang {asked} is not one of {', '.join(LANGUAGES)}.")
        return asked
    terminal = environment()
    said = next((terminal[name] for name in ("LC_ALL", "LC_MESSAGES", "LANG") if terminal.get(name)), "")
    return "ko" if said.lower().startswith("ko") else "en"


def takes_load(command: Callable[..., None]) -> Callable[..., None]:
    """Put the load's options where the command's parameter `load` stands; it gets them together, as LoadOptions."""
    return _takes(command, "load", _LOAD, LoadOptions)


def takes_engine(command: Callable[..., None]) -> Callable[..., None]:
    """Put the engine's options where the parameter `engine` stands; the command gets them as EngineOptions."""
    return _takes(command, "engine", _ENGINE, EngineOptions)


def _takes(
    command: Callable[..., None], place: str, table: dict[str, Any], together: Callable[..., Any]
) -> Callable[..., None]:
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        if parameter.name != place:
            parameters.append(parameter)
            continue
        parameters += [
            inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None, annotation=kind)
            for name, kind in table.items()
        ]

    @wraps(command)
    def with_them(**given: Any) -> None:
        options = together(**{name: given.pop(name) for name in table})
        command(**given, **{place: options})

    with_them.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    with_them.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return with_them
