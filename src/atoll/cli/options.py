"""Options that mean the same in every command. A command takes those it needs: `box: BoxFile = None`.

Those that say the load go together: a command that is decorated with `takes_load` has them all.
"""

import inspect
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from atoll.workflows.load import LoadOptions

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
    typer.Option("--policy", metavar="P", help="round_robin, least_conn, random_two_least_conn or per_island."),
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
ApiKeyFile = Annotated[
    Path | None,
    typer.Option("--api-key-file", metavar="FILE", help="A file with the key; `ps` shows that of --api-key to all."),
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


def takes_load(command: Callable[..., None]) -> Callable[..., None]:
    """Put the load's options where the command's parameter `load` stands; it gets them together, as LoadOptions."""
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        if parameter.name != "load":
            parameters.append(parameter)
            continue
        parameters += [
            inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None, annotation=kind)
            for name, kind in _LOAD.items()
        ]

    @wraps(command)
    def with_load(**given: Any) -> None:
        load = LoadOptions(**{name: given.pop(name) for name in _LOAD})
        command(**given, load=load)

    with_load.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    with_load.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return with_load
