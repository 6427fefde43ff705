"""What is written down of a request that has ended."""

from atoll.load.client import NAN, Connection
from atoll.load.message import MessageWriter
from atoll.load.mix import ModelMix
from atoll.load.progress import Window
from atoll.load.records import RecordLog
from atoll.load.rows import OUTCOMES
from atoll.load.usage import ODD_USAGE, count_tokens
from atoll.traffic.record import Outcome
from atoll.traffic.request import Request

_OK, _FAILED, _CANCELLED = (OUTCOMES.index(item) for item in (Outcome.OK, Outcome.FAILED, Outcome.CANCELLED))


class Ledger:
    """Keeps records, and what was seen of the server while it did."""

    def __init__(
        self, *, log: RecordLog, window: Window, writer: MessageWriter, mix: ModelMix, generates: bool
    ) -> None:
        self._log = log
        self._window = window
        self._writer = writer
        self._mix = mix
        self._generates = generates
        self.emulated = False  # whether any answer said that it is `atoll emulate`'s
        self.asks_for_lengths = True  # prompts are made as long as they are wanted; a file's are as long as they are

    def keep(self, connection: Connection, request: Request, *, stopped: str | None) -> bool:
        """Write the record; says whether the request failed. `stopped` is why the run was ended, if it was."""
        answer = connection.answer
        self.emulated = self.emulated or answer.emulated
        problem = connection.failure or answer.problem
        cancelled = stopped is not None and connection.failure is not None and connection.failure[0] == stopped
        outcome = _CANCELLED if cancelled else _OK if problem is None else _FAILED
        error, detail = problem or (None, None)
        times = answer.times
        tokens = count_tokens(answer.usage, request, len(times), generates=self._generates)
        if outcome == _OK and tokens.odd is not None:
            error, detail = ODD_USAGE, f"the usage says {tokens.odd}"
        self._log.add(
            number=request.number,
            user=request.user,
            turn=request.turn,
            due=connection.due,
            sent=connection.sent,
            first_byte=answer.first_byte or NAN,
            times=times,
            done=answer.now,
            prompt_tokens=tokens.prompt,
            output_tokens=tokens.output,
            cached_tokens=tokens.cached,
            status=answer.status,
            error=error,
            detail=detail,
            replica=answer.replica,
            outcome=outcome,
            counted=tokens.from_chunks,
            asked_prompt_tokens=request.prompt_tokens if answer.usage and self.asks_for_lengths else 0,
            asked_output_tokens=request.output_tokens if self._writer.is_exact else 0,
            resent=connection.resent,
            retried=connection.retried,
            model=self._mix.model_of(request),
        )
        if not connection.told_first and times:
            self._window.note_first(connection)
        self._window.note_end(connection, OUTCOMES[outcome].value, error)
        return outcome == _FAILED
