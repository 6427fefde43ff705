import pytest

from atoll.engines.vllm.options import has_option, known_versions, listed_version, options_of, why_not_flags
from atoll.engines.vllm.versions import parse_version
from atoll.errors import InputError
from atoll.layout.layout import EngineFlags


def test_every_minor_version_from_08_to_033_is_listed():
    minors = {parse_version(version)[1] for version in known_versions()}
    assert minors == set(range(8, 34))


def test_the_list_of_032_holds_what_its_help_shows():
    options = options_of("0.32.0")
    assert len({option.long for option in options.values()}) == 317
    assert options["-tp"].long == "--tensor-parallel-size"
    assert options["-tp"].takes_value
    assert options["--no-enable-prefix-caching"].long == "--enable-prefix-caching"
    assert not options["--no-enable-prefix-caching"].takes_value
    assert options["--served-model-name"].several
    assert "fp8" in (options["--kv-cache-dtype"].choices or ())
    assert options["--gpu-memory-utilization"].default == 0.92
    assert options["--log-config-file"].deprecated
    assert not options["--max-num-seqs"].deprecated


def test_options_come_and_go():
    assert not has_option("0.16.0", "--shutdown-timeout")
    assert has_option("0.18.1", "--shutdown-timeout")
    assert has_option("0.8.5", "--disable-log-requests")
    assert not has_option("0.32.0", "--disable-log-requests")
    assert not has_option("0.28.0", "--max-num-queued-reqs")
    assert has_option("0.29.0", "--max-num-queued-reqs")
    assert not has_option("0.32.0", "--swap-space")


@pytest.mark.parametrize(
    ("version", "listed"),
    [("0.32.0", "0.32.0"), ("v0.10.1.post2", "0.10.2"), ("0.8.3", "0.8.5"), ("0.7.3", "0.8.5"), ("0.40.0", "0.33.0")],
)
def test_a_version_reads_the_list_of_its_minor_or_of_the_nearest_older(version, listed):
    assert listed_version(version) == listed


def test_what_is_no_version_is_refused():
    with pytest.raises(InputError, match=r"'latest' is no vLLM version"):
        parse_version("latest")


@pytest.mark.parametrize("version", ["0.32.0", "0.33.0"])
@pytest.mark.parametrize("name", ["--no-enable-prefix-caching", "--no-enable-chunked-prefill"])
def test_switching_off_by_no_is_accepted_although_the_help_of_0_33_hides_it(version, name):
    assert has_option(version, name)


def test_what_has_no_pair_gets_no_hidden_name():
    assert not has_option("0.33.0", "--no-disable-access-log-for-endpoints")
    assert has_option("0.33.0", "--no-disable-custom-all-reduce")


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        ({"kv_cache_dtype": "fp3"}, "kv_cache_dtype fp3 is not one of auto, "),
        ({"max_num_batched_tokens": 8, "max_num_seqs": 64}, "max_num_batched_tokens 8 is less than max_num_seqs 64"),
        ({"max_num_batched_tokens": 4096, "enable_chunked_prefill": False}, "is less than max_model_len 32768"),
    ],
)
def test_options_with_which_vllm_does_not_start(flags, why):
    assert why in why_not_flags(EngineFlags(**flags), max_model_len=32768)


def test_a_step_that_holds_the_longest_prompt_needs_no_chunks():
    whole = {"max_num_batched_tokens": 4096, "enable_chunked_prefill": False}
    assert why_not_flags(EngineFlags(**whole, max_model_len=4096), max_model_len=32768) is None
    assert why_not_flags(EngineFlags(max_num_batched_tokens=4096), max_model_len=32768) is None
