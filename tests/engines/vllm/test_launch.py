import pytest

from atoll.engines import emulated, find_engine, vllm
from atoll.engines.vllm.pinning import cores_beside
from atoll.errors import InputError
from atoll.inventory.box import Box, Gpu, Link, LinkKind
from atoll.inventory.catalog import make_box
from atoll.layout.layout import EngineFlags, Layout, Replica
from atoll.model.read import read_model

CARD = read_model("Qwen/Qwen2.5-32B-Instruct")


def box_of(kind: str, links: dict[tuple[int, int], LinkKind], n: int) -> Box:
    pairs = [(a, b) for a in range(n) for b in range(a + 1, n)]
    made = [
        Link(a=a, b=b, kind=k, nvlinks=12 if k is LinkKind.NV else 0)
        for a, b in pairs
        if (k := links.get((a, b), LinkKind.SYS))
    ]
    return Box(gpus=tuple(Gpu(index=i, name=kind) for i in range(n)), links=tuple(made))


PAIRS = {(0, 1): LinkKind.NV, (2, 3): LinkKind.NV}


def layout_on(box: Box, *gpus: int, version: str = "0.32.0", **flags) -> Layout:
    replica = Replica(gpus=gpus, tensor_parallel=len(gpus))
    return Layout(
        name="l", model=CARD.name, box=box, replicas=(replica,), flags=EngineFlags(**flags), engine_version=version
    )


def launch(layout: Layout):
    return vllm.launch(layout, layout.replicas[0], CARD, host="127.0.0.1", port=8000)


def option(argv: tuple[str, ...], name: str) -> str | None:
    return argv[argv.index(name) + 1] if name in argv else None


def test_a_replica_is_pinned_by_nvidia_smis_numbers_and_stays_offline():
    made = launch(layout_on(box_of("H100-NVL-94GB", PAIRS, 4), 2, 3))
    assert made.argv[:3] == ("vllm", "serve", "Qwen/Qwen2.5-32B-Instruct")
    assert option(made.argv, "--tensor-parallel-size") == "2"
    assert made.env["CUDA_VISIBLE_DEVICES"] == "2,3"
    assert made.env["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert made.env["HF_HUB_OFFLINE"] == made.env["VLLM_NO_USAGE_STATS"] == made.env["DO_NOT_TRACK"] == "1"
    assert not any("api-key" in word for word in made.argv)


def test_whole_experts_are_asked_for_only_where_the_layout_says_so():
    box = make_box("H100-SXM-80GB", 2)
    assert "--enable-expert-parallel" in launch(layout_on(box, 0, 1, enable_expert_parallel=True)).argv
    assert "--enable-expert-parallel" not in launch(layout_on(box, 0, 1)).argv


def test_flags_become_options_and_what_is_default_is_not_said():
    plain = launch(layout_on(make_box("H100-SXM-80GB", 1), 0)).argv
    for name in ("--dtype", "--kv-cache-dtype", "--max-num-seqs", "--enforce-eager", "--no-enable-prefix-caching"):
        assert name not in plain
    flags = {
        "dtype": "bfloat16", "quantization": "fp8", "kv_cache_dtype": "fp8", "max_model_len": 4096, "max_num_seqs": 32,
        "max_num_batched_tokens": 8192, "enable_prefix_caching": False, "enforce_eager": True, "gpu_memory_utilization": 0.85,
        "max_num_queued_reqs": 64, "extra": ("--seed", "1"),
    }  # fmt: skip
    full = launch(layout_on(make_box("H100-SXM-80GB", 1), 0, **flags)).argv
    assert option(full, "--dtype") == "bfloat16"
    assert option(full, "--quantization") == "fp8"
    assert option(full, "--kv-cache-dtype") == "fp8"
    assert option(full, "--max-model-len") == "4096"
    assert option(full, "--max-num-seqs") == "32"
    assert option(full, "--max-num-batched-tokens") == "8192"
    assert option(full, "--gpu-memory-utilization") == "0.85"
    assert option(full, "--max-num-queued-reqs") == "64"
    assert {"--no-enable-prefix-caching", "--enforce-eager"} <= set(full)
    assert full[-2:] == ("--seed", "1")


def test_an_option_that_the_version_lacks_is_refused_when_asked_for():
    layout = layout_on(make_box("H100-SXM-80GB", 1), 0, version="0.10.2", max_num_queued_reqs=64)
    with pytest.raises(InputError, match=r"vLLM 0.10.2 has no --max-num-queued-reqs"):
        launch(layout)


def test_manners_follow_the_version():
    box = make_box("H100-SXM-80GB", 1)
    new, old = launch(layout_on(box, 0)).argv, launch(layout_on(box, 0, version="0.8.5")).argv
    assert option(new, "--shutdown-timeout") == "120"
    assert "--shutdown-timeout" not in old
    assert "--disable-log-requests" in old
    assert "--disable-log-requests" not in new
    assert vllm.keep_alive_s("0.32.0") == 75
    assert vllm.keep_alive_s("0.8.5") == 5
    assert vllm.image("v0.32.0") == vllm.image("0.32.0") == "vllm/vllm-openai:v0.32.0"


def test_before_011_only_the_old_engine_does_without_chunks():
    box = make_box("H100-SXM-80GB", 1)
    old = launch(layout_on(box, 0, version="0.8.5", enable_chunked_prefill=False))
    new = launch(layout_on(box, 0, enable_chunked_prefill=False))
    assert "--no-enable-chunked-prefill" in old.argv
    assert "--no-enable-chunked-prefill" in new.argv
    assert old.env["VLLM_USE_V1"] == "0"
    assert "VLLM_USE_V1" not in new.env


@pytest.mark.parametrize(
    ("kind", "gpus", "version", "off"),
    [
        ("H100-NVL-94GB", (0, 1), "0.32.0", False),  # one bridge: FlashInfer's kernel is right
        ("H100-NVL-94GB", (0, 1, 2, 3), "0.32.0", True),  # two pairs: it would run over PCIe
        ("H100-NVL-94GB", (1, 2), "0.32.0", True),
        ("H100-NVL-94GB", (0,), "0.32.0", False),
        ("A100-PCIE-80GB", (0, 1, 2, 3), "0.32.0", False),  # not eligible in the first place
        ("H100-NVL-94GB", (0, 1, 2, 3), "0.9.2", False),  # before it existed
    ],
)
def test_flashinfers_all_reduce_is_off_where_it_would_cross_pcie(kind, gpus, version, off):
    made = launch(layout_on(box_of(kind, PAIRS, 4), *gpus, version=version))
    assert (made.env.get("VLLM_ALLREDUCE_USE_FLASHINFER") == "0") is off
    expected = '{"pass_config":{"fuse_allreduce_rms":false}}' if off else None
    assert option(made.argv, "--compilation-config") == expected


def test_the_fusion_had_another_name_until_011():
    box = box_of("H100-NVL-94GB", PAIRS, 4)
    made = launch(layout_on(box, 0, 1, 2, 3, version="0.11.2"))
    assert option(made.argv, "--compilation-config") == '{"pass_config":{"enable_fi_allreduce_fusion":false}}'
    assert "VLLM_ALLREDUCE_USE_FLASHINFER" not in made.env  # it came with 0.17


def test_a_folder_is_served_under_the_cards_name():
    layout = layout_on(make_box("H100-SXM-80GB", 1), 0).replace(model="/srv/models/qwen")
    made = launch(layout)
    assert made.argv[2] == "/srv/models/qwen"
    assert option(made.argv, "--served-model-name") == "Qwen/Qwen2.5-32B-Instruct"


@pytest.mark.parametrize("short", ["Qwen2.5-32B-Instruct", "qwen2.5-32b-instruct"])
def test_a_short_name_is_loaded_and_served_under_the_hubs_name(short):
    layout = layout_on(box_of("H100-NVL-94GB", PAIRS, 4), 0, 1).replace(model=short)
    argv = launch(layout).argv
    assert argv[argv.index("serve") + 1] == option(argv, "--served-model-name") == "Qwen/Qwen2.5-32B-Instruct"


def test_legal_sizes_divide_heads_and_agree_with_kv_heads():
    assert vllm.legal_tensor_parallel(CARD, range(1, 17)) == (1, 2, 4, 8)  # 40 heads, 8 KV heads
    assert emulated.legal_tensor_parallel(CARD, (1, 3, 8)) == (1, 8)


def test_cores_are_those_of_the_gpus_own_node():
    gpus = tuple(Gpu(index=i, numa_node=i // 2, cpu_affinity=f"{32 * (i // 2)}-{32 * (i // 2) + 31}") for i in range(4))
    box = box_of("H100-NVL-94GB", PAIRS, 4).replace(gpus=gpus)
    assert cores_beside(box, (2, 3)) == "32-63"
    assert cores_beside(box, (0, 1, 2, 3)) is None  # on both nodes
    one_node = box.replace(gpus=tuple(gpu.replace(numa_node=0) for gpu in gpus))
    assert cores_beside(one_node, (0, 1)) is None
    assert cores_beside(make_box("H100-SXM-80GB", 8), (0, 1)) is None  # nothing was printed


def test_the_emulated_engine_is_told_which_replica_it_is():
    layout = layout_on(box_of("H100-NVL-94GB", PAIRS, 4), 2, 3).replace(engine="emulated")
    made = emulated.launch(layout, layout.replicas[0], CARD, host="0.0.0.0", port=8001)
    assert made.argv == (
        "python", "-m", "atoll", "emulate", "--layout", "layout.yaml", "--replica", "0", "--host", "0.0.0.0", "--port", "8001",
    )  # fmt: skip


def test_an_engine_that_there_is_not_is_refused():
    assert find_engine("vllm").name == "vllm"
    with pytest.raises(InputError, match="'sglang' is no engine that can be started; there are vllm, emulated"):
        find_engine("sglang")
