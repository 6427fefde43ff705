"""Options that mean the same in every command. A command takes those it needs: `users: Users = None`."""

from pathlib import Path
from typing import Annotated

import typer

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
Rate = Annotated[float | None, typer.Option("--rate", min=0.0, metavar="R", help="Requests per second, open loop.")]
Requests = Annotated[int | None, typer.Option("--requests", min=1, metavar="N", help="Stop after so many requests.")]
Duration = Annotated[str | None, typer.Option("--duration", metavar="D", help="Send for so long: 10m, 90s.")]
Warmup = Annotated[str, typer.Option("--warmup", metavar="D", help="Leave out what is sent before this time.")]
Prompt = Annotated[int, typer.Option("--prompt", min=1, metavar="TOKENS", help="Prompt length.")]
Output = Annotated[int, typer.Option("--output", min=1, metavar="TOKENS", help="Answer length.")]
Seed = Annotated[int, typer.Option("--seed", metavar="N", help="The same seed gives the same requests.")]
SloTtft = Annotated[str | None, typer.Option("--slo-ttft", metavar="D", help="Longest wanted time to first token.")]
SloTpot = Annotated[str | None, typer.Option("--slo-tpot", metavar="D", help="Longest wanted time per output token.")]
Profile = Annotated[
    Path | None,
    typer.Option("--profile", metavar="FILE", help="What `atoll calibrate -o FILE` found on the machine."),
]
OutPath = Annotated[Path | None, typer.Option("-o", "--out", metavar="PATH", help="Where to write.")]
EngineKind = Annotated[str, typer.Option("--engine", metavar="E", help="simulated, emulated or vllm.")]
