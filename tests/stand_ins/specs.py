"""A replica in one line: flags by name beside the split."""

from atoll.engines.spec import EngineSpec
from atoll.layout.layout import EngineFlags

SPLIT = ("tensor_parallel", "pipeline_parallel", "box", "gpus", "engine", "engine_version")


def spec_of(card, kind, **settings):
    """`spec_of(card, kind, tensor_parallel=2, max_num_seqs=64)`."""
    split = {name: settings.pop(name) for name in SPLIT if name in settings}
    return EngineSpec.on(card, kind, flags=EngineFlags(**settings), **split)
