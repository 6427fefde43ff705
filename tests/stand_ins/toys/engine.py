"""An engine that nobody has: all that a new one has to say, in one module."""

from atoll.engines.counters import CounterNames, HistogramNames
from atoll.engines.engine import SIZES, Launch, MemoryFacts, PoolFacts, SchedulerLimits, StepFacts, loaded_name

name = "toy"
pipeline_parallel = False
program = ("toy-serve",)
health_path = "/alive"
counters = CounterNames(running=("toy_running",), output_tokens=("toy_tokens_total",))
histograms = HistogramNames()
emulates = False
cache_folder = None
SEATS = 12


def image(version):
    return f"example.org/toy:{version}"


def launch(layout, replica, card, *, host, port):
    where = ("--listen", f"{host}:{port}", "--gpus", str(len(replica.gpus)))
    return Launch(argv=(*program, loaded_name(layout, card), *where))


def keep_alive_s(version):
    return 60.0


def health_command(port):
    return ("toy-alive", str(port))


def parse_version(text):
    return (int(text.split(".")[0]), 0, 0)


def check_version(text):
    parse_version(text)


def fill_flags(flags, version, kind, *, max_model_len=None):
    return flags.replace(max_num_seqs=SEATS, max_num_batched_tokens=2048)


def cache_dtype(flags, card):
    return "auto"


def caches_prefixes(flags, version, card):
    return flags.enable_prefix_caching


def scheduler_limits(flags, version):
    return SchedulerLimits(max_num_seqs=SEATS, max_num_batched_tokens=2048, async_scheduling=False)


def memory_utilization(version):
    return 0.9


def memory_facts(flags, version, card, kind, *, tensor=1, pipeline=1, from_image=True):
    return MemoryFacts(
        context_bytes=2**30,
        graph_bytes=0,
        graphs_budgeted=True,
        warm_up_bytes=0,
        sampler_bytes=0,
        sampler_rows=0,
        expert_rounding=(1, 1),
        pool=PoolFacts(),
    )


def step_facts(flags, version, kind):
    return StepFacts(graph_sizes=(), async_scheduling=False, early_inputs=False)


def why_not_flags(flags, **_):
    return None


def why_not_on(card, kind):
    return None


def why_not_split(card, tensor_parallel, *, expert_parallel=False):
    return None if tensor_parallel <= 2 else f"toy splits over two GPUs at most, not {tensor_parallel}."


def why_whole_experts(card, tensor_parallel):
    return None


def legal_tensor_parallel(card, sizes=SIZES):
    return tuple(size for size in sizes if size <= 2)


def explain_sizes(card, sizes=SIZES):
    return "legal sizes are 1 and 2"
