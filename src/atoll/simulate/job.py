"""One request as an engine sees it."""

from collections.abc import Hashable

from atoll.engines.engine import BLOCK_TOKENS
from atoll.traffic.demand import Drawn
from atoll.traffic.request import Request

# Where a prompt's blocks may be found: (name of a stream of tokens, block at which the stream stops; None: never).
Chain = tuple[tuple[Hashable, int | None], ...]


class Job:
    """A request in the scheduler: identity and lengths for good, and what the engine has computed of it so far.

    The answer's length is known to us (not to vLLM); `ends_by_eos` says that the engine learns of its end only when
    the last token is there.
    """

    __slots__ = (
        "anchor",
        "blocks",
        "cached_tokens",
        "chain",
        "computed",
        "ends_by_eos",
        "gone",
        "key",
        "last",
        "number",
        "output_tokens",
        "preemptions",
        "prompt_tokens",
        "serial",
        "shared",
        "since",
        "spilled",
        "stopping",
        "tokens",
        "user",
    )

    def __init__(
        self,
        *,
        number: int,
        prompt_tokens: int,
        output_tokens: int,
        user: int = 0,
        chain: Chain = (),
        ends_by_eos: bool = False,
        key: str = "",
    ) -> None:
        self.number = number
        self.user = user
        self.prompt_tokens = prompt_tokens
        self.output_tokens = output_tokens
        self.chain = chain
        self.ends_by_eos = ends_by_eos
        self.key = key  # what a router by hash looks at
        self.spilled = False  # such a router found its replica hot, and all others
        self.tokens = prompt_tokens  # prompt and answer so far; not kept up while decoding (`anchor` is)
        self.computed = 0  # tokens whose keys and values are in the cache; not kept up while decoding
        self.cached_tokens = 0  # of the prompt, found in the prefix cache when first admitted
        self.blocks = 0  # KV blocks held; not kept up while decoding
        self.shared = 0  # leading blocks that others may use too
        self.anchor = 0  # decoding: tokens in the cache are anchor + the scheduler's beat
        self.last = -1  # decoding: the beat that gives the last token
        self.serial = 0  # order of admission
        self.since: int | None = None  # first entry of its replica's clock since which it has had a token at each
        self.preemptions = 0
        self.stopping = False  # its last step has been scheduled
        self.gone = False  # finished or aborted

    @property
    def is_open_ended(self) -> bool:
        """Whether blocks beyond the common head, the answer's included, may be reused: by its session or by itself."""
        return bool(self.chain) and self.chain[-1][1] is None

    def __repr__(self) -> str:
        return f"Job({self.number}: {self.prompt_tokens}+{self.output_tokens}, {self.tokens} tokens)"


def chain_of(request: "Request | Drawn") -> Chain:
    """The streams in which a prompt's head may be cached: the head that all share, then its session."""
    if request.session is None and request.shared_prefix_tokens < BLOCK_TOKENS:
        return ()
    head = request.shared_prefix_tokens // BLOCK_TOKENS
    common: Chain = ((("prefix", request.prefix), head),) if head else ()
    return common if request.session is None else (*common, (("session", request.session, head), None))
