"""`atoll emulate`: an OpenAI-compatible server that speaks and paces like vLLM, without a GPU."""

from pathlib import Path
from typing import Annotated

import typer

from atoll.cli.options import ApiKeyFile, GpuName, ModelName, Profile
from atoll.cli.show import progress


def register(app: typer.Typer) -> None:
    app.command()(emulate)


def emulate(
    layout: Annotated[
        Path | None, typer.Option("--layout", metavar="FILE", help="A layout; --replica says which of its engines.")
    ] = None,
    replica: Annotated[int, typer.Option("--replica", min=0, metavar="N", help="Which engine of the layout.")] = 0,
    gpu: GpuName = None,
    tp: Annotated[int, typer.Option("--tp", min=1, metavar="N", help="Tensor-parallel size.")] = 1,
    model: ModelName = None,
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=1, max=65535, metavar="P", help="Port to listen on.")] = 8000,
    api_key: Annotated[
        str | None, typer.Option("--api-key", metavar="KEY", help="Ask clients for it under /v1; else VLLM_API_KEY.")
    ] = None,
    api_key_file: ApiKeyFile = None,
    speed: Annotated[
        float,
        typer.Option("--speed", min=0.001, metavar="X", help="10 runs ten times as fast as the real engine would."),
    ] = 1.0,
    profile: Profile = None,
    max_num_seqs: Annotated[
        int | None, typer.Option("--max-num-seqs", min=1, metavar="N", help="Most requests in a batch.")
    ] = None,
    max_num_batched_tokens: Annotated[
        int | None, typer.Option("--max-num-batched-tokens", min=1, metavar="N", help="Most tokens of a step.")
    ] = None,
    max_model_len: Annotated[
        int | None, typer.Option("--max-model-len", min=1, metavar="N", help="Longest prompt and answer.")
    ] = None,
    max_num_queued_reqs: Annotated[
        int | None, typer.Option("--max-num-queued-reqs", min=1, metavar="N", help="Waiting requests before 503.")
    ] = None,
    served_model_name: Annotated[
        list[str] | None,
        typer.Option("--served-model-name", metavar="NAME", help="What clients call the model; may be given again."),
    ] = None,
    prompt_tokens_details: Annotated[  # vLLM's names of this and the next; too long for a column of the help
        bool, typer.Option("--enable-prompt-tokens-details", hidden=True)
    ] = False,
    prefix_caching: Annotated[
        bool | None, typer.Option("--enable-prefix-caching/--no-enable-prefix-caching", hidden=True)
    ] = None,
    without_prefix_caching: Annotated[
        bool, typer.Option("--no-prefix-caching", help="Compute every prompt from its start.")
    ] = False,
) -> None:
    """Serve a model without a GPU, as fast as the cost model says that it would be.

    Streams, usage, errors and /metrics are vLLM's; the text is made of fixed words, one token each. Stop it with
    Ctrl-C.

    Example: atoll emulate --gpu H100-NVL-94GB --tp 2 --model Qwen/Qwen2.5-32B-Instruct --port 8001
    """
    from atoll.layout.layout import EngineFlags
    from atoll.workflows.asking import key_of
    from atoll.workflows.emulate import emulate_replica, layout_to_emulate, profile_beside

    details = ("--enable-prompt-tokens-details",) if prompt_tokens_details else ()
    names = ("--served-model-name", *served_model_name) if served_model_name else ()
    given = {
        "max_num_seqs": max_num_seqs,
        "max_num_batched_tokens": max_num_batched_tokens,
        "max_model_len": max_model_len,
        "max_num_queued_reqs": max_num_queued_reqs,
        "enable_prefix_caching": False if without_prefix_caching else prefix_caching,
        "extra": (*names, *details),
    }
    flags = EngineFlags.model_validate({name: value for name, value in given.items() if value is not None})
    chosen = layout_to_emulate(file=layout, gpu=gpu, tensor_parallel=tp, model=model, flags=flags)
    emulate_replica(
        chosen,
        replica,
        host=host,
        port=port,
        api_key=key_of(api_key, api_key_file, say=_say, variables=("VLLM_API_KEY",)),
        speed=speed,
        profile=profile or profile_beside(layout),
        say=_say,
    )


def _say(line: str) -> None:
    progress.print(line, soft_wrap=True)
