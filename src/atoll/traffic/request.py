"""One request as it is meant to be sent."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What a user asks. The text itself is made by the load generator; the simulator needs only the counts."""

    number: int  # 0, 1, 2 ... in the order in which requests are made
    user: int  # closed loop: who sends it; open loop: equal to `number`
    turn: int = 0  # place within the user's session
    due_s: float | None = None  # seconds from the start of the run; None: as soon as the user's last answer ended
    prompt_tokens: int
    output_tokens: int
    shared_prefix_tokens: int = 0  # this many of the prompt's first tokens are the same as in ...
    prefix: int = 0  # ... every request with the same prefix number
    session: int | None = None  # turns of one session carry the earlier ones; None: every request stands alone
    history_tokens: int = 0  # this many first tokens of the prompt repeat the session's last prompt and its answer
