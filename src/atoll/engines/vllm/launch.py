"""How vLLM is spoken to: argv and environment of one replica, for vLLM 0.8 to 0.33.

An option that a version lacks is left out when it is ours, and refused in a sentence when somebody asked for it.
"""

import json

from atoll.engines.engine import Launch, loaded_name, served_name
from atoll.engines.vllm.defaults import memory_utilization
from atoll.engines.vllm.options import has_option
from atoll.engines.vllm.pinning import cores_beside
from atoll.engines.vllm.scheduler import is_v0
from atoll.engines.vllm.versions import parse_version
from atoll.errors import InputError, UnknownGpu
from atoll.inventory.catalog import find_gpu
from atoll.inventory.islands import is_fully_connected
from atoll.layout.layout import EngineFlags, Layout, Replica
from atoll.model.card import ModelCard

name = "vllm"
health_path = "/health"
program: tuple[str, ...] = ("vllm", "serve")
emulates = False
cache_folder: str | None = "/root/.cache/vllm"

KEEP_ALIVE_S = 75  # above any nginx before it, so that the engine never closes first
KEEP_ALIVE_SINCE = (0, 9, 2)  # at the latest: VLLM_HTTP_TIMEOUT_KEEP_ALIVE in vllm/envs.py, absent from 0.8.5
FLASHINFER_SINCE = (0, 10)  # FlashInfer's all-reduce, fused with the norm
FUSION_RENAMED_SINCE = (0, 12)  # its option
FLASHINFER_SWITCH_SINCE = (0, 17)  # VLLM_ALLREDUCE_USE_FLASHINFER
SHUTDOWN_S = 120  # time for running answers when a container is stopped

# Nothing is fetched or reported: the box may have no network, and it is nobody's business.
OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
}


def image(version: str) -> str:
    return f"vllm/vllm-openai:v{version.removeprefix('v')}"


def keep_alive_s(version: str) -> float:
    """Ours where the variable is read, else uvicorn's own."""
    return KEEP_ALIVE_S if parse_version(version) >= KEEP_ALIVE_SINCE else 5.0


def health_command(port: int) -> tuple[str, ...]:
    return ("curl", "-fsS", "-o", "/dev/null", f"http://127.0.0.1:{port}{health_path}")


def launch(layout: Layout, replica: Replica, card: ModelCard, *, host: str, port: int) -> Launch:
    """Program, arguments and variables of one replica.

    vLLM loads the folder that `layout.model` names, or the model of that name on the hub, and serves it under the
    card's name. The API key is never an argument: vLLM reads VLLM_API_KEY.

    Raises:
        InputError: an option was asked for that this version of vLLM does not have.
    """
    version = layout.engine_version
    arguments = [
        loaded_name(layout, card),
        *("--served-model-name", served_name(card)),
        *("--host", host, "--port", str(port)),
        *_split(replica),
        *_flag_arguments(layout.flags, version),
        *_all_reduce_arguments(layout, replica),
        *_manners(version),
        *layout.flags.extra,
    ]
    return Launch(
        argv=(*program, *arguments),
        env=_environment(layout, replica),
        cpus=cores_beside(layout.box, replica.gpus),
    )


def _split(replica: Replica) -> list[str]:
    words = ["--tensor-parallel-size", str(replica.tensor_parallel)]
    if replica.pipeline_parallel > 1:
        words += ["--pipeline-parallel-size", str(replica.pipeline_parallel)]
    return words


def _flag_arguments(flags: EngineFlags, version: str) -> list[str]:
    words = ["--gpu-memory-utilization", f"{flags.gpu_memory_utilization or memory_utilization(version):g}"]
    words += _unless(flags.dtype, "auto", "--dtype")
    words += _unless(flags.quantization, None, "--quantization")
    words += _unless(flags.kv_cache_dtype, "auto", "--kv-cache-dtype")
    words += _unless(flags.max_model_len, None, "--max-model-len")
    words += _unless(flags.max_num_seqs, None, "--max-num-seqs")
    words += _unless(flags.max_num_batched_tokens, None, "--max-num-batched-tokens")
    words += [] if flags.enable_prefix_caching else ["--no-enable-prefix-caching"]
    words += [] if flags.enable_chunked_prefill else ["--no-enable-chunked-prefill"]
    words += ["--enforce-eager"] if flags.enforce_eager else []
    words += ["--enable-expert-parallel"] if flags.enable_expert_parallel else []
    if flags.max_num_queued_reqs is not None:
        words += _asked("--max-num-queued-reqs", str(flags.max_num_queued_reqs), version)
    return words


def _unless(value: str | int | None, default: str | None, option: str) -> list[str]:
    return [] if value == default else [option, str(value)]


def _asked(option: str, value: str, version: str) -> list[str]:
    if not has_option(version, option):
        raise InputError(
            f"vLLM {version} has no {option}; leave the flag out or set engine_version to a newer release."
        )
    return [option, value]


def _manners(version: str) -> list[str]:
    """What a server behind a proxy wants in any case, as far as the version has it."""
    words = []
    if has_option(version, "--shutdown-timeout"):
        words += ["--shutdown-timeout", str(SHUTDOWN_S)]
    if has_option(version, "--disable-access-log-for-endpoints"):
        words += ["--disable-access-log-for-endpoints", "/health,/metrics"]
    if not has_option(version, "--enable-log-requests"):
        words += ["--disable-log-requests"]  # logged every prompt unless told otherwise
    return words


def _all_reduce_arguments(layout: Layout, replica: Replica) -> list[str]:
    """Switch off the all-reduce fused with the norm where it would run over PCIe; see `_environment`."""
    if not needs_plain_all_reduce(layout, replica):
        return []
    option = (
        "fuse_allreduce_rms"
        if parse_version(layout.engine_version) >= FUSION_RENAMED_SINCE
        else "enable_fi_allreduce_fusion"
    )
    return ["--compilation-config", json.dumps({"pass_config": {option: False}}, separators=(",", ":"))]


def _keep_alive(version: str) -> dict[str, str]:
    """The variable, where this version reads it."""
    read = keep_alive_s(version) == KEEP_ALIVE_S
    return {"VLLM_HTTP_TIMEOUT_KEEP_ALIVE": str(KEEP_ALIVE_S)} if read else {}


def _environment(layout: Layout, replica: Replica) -> dict[str, str]:
    """Variables of one replica as a process; in a container its GPUs are chosen by the container's device ids.

    FlashInfer's all-reduce has no check of the NVLink topology: forced over PCIe on H100 NVL it took 259 ms a token in
    place of 25 (vllm#48071, PR #48075), so it is off for Hopper and Blackwell groups that NVLink does not join fully.
    """
    variables = {
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # nvidia-smi's numbers; CUDA alone would put the fastest card first
        "CUDA_VISIBLE_DEVICES": ",".join(layout.box.device_ids(replica.gpus)),
        **_keep_alive(layout.engine_version),
        **OFFLINE,
    }
    if needs_plain_all_reduce(layout, replica) and parse_version(layout.engine_version) >= FLASHINFER_SWITCH_SINCE:
        variables["VLLM_ALLREDUCE_USE_FLASHINFER"] = "0"
    if is_v0(layout.flags, layout.engine_version):
        variables["VLLM_USE_V1"] = "0"  # until 0.10 V1 chunks whatever the flag says, and only V0 can do without
    return variables


def needs_plain_all_reduce(layout: Layout, replica: Replica) -> bool:
    """Whether a tensor-parallel group of Hopper or Blackwell cards is not fully joined by NVLink."""
    if replica.tensor_parallel == 1 or parse_version(layout.engine_version) < FLASHINFER_SINCE:
        return False
    if is_fully_connected(layout.box, replica.gpus):
        return False
    return any(_is_eligible(layout.box.gpu(index).name) for index in replica.gpus)


def _is_eligible(gpu_name: str | None) -> bool:
    """FlashInfer's all-reduce is for sm90 and sm10x; a card we do not know counts, since off is always safe."""
    if gpu_name is None:
        return True
    try:
        return find_gpu(gpu_name).compute_capability.split(".")[0] in {"9", "10"}
    except UnknownGpu:
        return True
