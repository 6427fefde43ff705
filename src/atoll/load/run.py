"""Send the traffic, keep what comes back: a URL and a Workload in, a RecordTable out."""

import asyncio
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from atoll.errors import RunFailed
from atoll.load.connect import Dialer, ask_plainly
from atoll.load.orders import Orders, SenderResult
from atoll.load.pace import LoadStep
from atoll.load.progress import Progress
from atoll.load.prompts import Aside, Prompts, SyntheticPrompts
from atoll.load.rows import join_logs
from atoll.load.scripts import is_english, words_of_script
from atoll.load.selfwatch import ClientReport, judge, users_held
from atoll.load.sender import Sender
from atoll.load.target import Endpoint, RequestOptions, Target, models_in, parse_target
from atoll.load.tokens import BY_WORDS, Vocabulary, by_letters, calibrated
from atoll.load.watch import Telemetry, Watch
from atoll.outside.clock import Clock, SystemClock
from atoll.traffic.demand import Demand
from atoll.traffic.record import Outcome, RecordTable, Source
from atoll.traffic.start import MOST_OF_THE_RUN, settle_start, with_mean_lengths
from atoll.traffic.trace import TraceRow
from atoll.traffic.workload import Arrivals, Lengths, Start, Workload


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadResult:
    """What a run gave."""

    table: RecordTable
    client: ClientReport
    model: str
    url: str
    prompts: str  # how the prompts' token counts were made
    started_at: float  # seconds since 1970
    telemetry: Telemetry
    source: Source  # measured, or emulated where an answer said so
    stopped: str | None = None  # why it ended early: a word such as `interrupted`
    disk: str | None = None  # what the disk refused first, of the records, which are in `table` all the same
    notes: tuple[str, ...] = ()  # what else is worth telling


class LoadControl:
    """A handle on a run under way."""

    def __init__(self) -> None:
        self._stop: Callable[[str], None] | None = None
        self._wanted: str | None = None

    def stop(self, reason: str = "interrupted") -> None:
        """End it now: what is under way is cancelled, and the records so far are kept."""
        self._wanted = reason
        if self._stop is not None:
            self._stop(reason)

    def attach(self, stop: Callable[[str], None]) -> None:
        """Say what ends the run; called by whoever carries it out."""
        self._stop = stop
        if self._wanted is not None:
            stop(self._wanted)


async def measure_load(
    url: str,
    workload: Workload,
    *,
    options: RequestOptions | None = None,
    trace: Sequence[TraceRow] = (),
    prompts: Prompts | None = None,
    vocabulary: Vocabulary | None = None,
    steps: Sequence[LoadStep] = (),
    metrics: Sequence[str] | None = None,
    folder: Path | None = None,
    drain_s: float | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    control: LoadControl | None = None,
    clock: Clock | None = None,
    workers: "Workers | None" = None,
    answer_s: float | None = None,
    control_file: Path | None = None,
) -> LoadResult:
    """Run a workload against a server.

    Users that are to start spread do so over the time of one answer: `answer_s`, else that of one request that is sent
    before, which is in no record.

    Args:
        url: `host:port`, `http://host:port`, `.../v1` or the full path of an endpoint.
        workload: who sends what, for how long.
        options: model, endpoint, key, headers, timeouts.
        trace: rows for a workload that takes its requests or lengths from a trace.
        prompts: what the users say; None makes synthetic text of the wanted lengths.
        vocabulary: words for synthetic text and how many tokens they are; None asks the server's tokenizer, if it lets
            itself be asked, else takes one token a word.
        steps: how the number of users or the rate changes; the workload has the most of it.
        metrics: URLs of the engines' /metrics, one a replica, sampled meanwhile; None tries the server's own.
        folder: records are written there while they come; None keeps them in memory.
        drain_s: how long answers may go on after the last request was sent; None waits for all of them.
        on_progress: called twice a second.
        control: lets the caller end the run early.
        clock: None is the machine's.
        workers: who sends; None: this loop.
        answer_s: how long one answer is expected to take; None: not known.
        control_file: says how many users there are to be, while it runs; see load/control.py.

    Raises:
        InputError: the URL, the workload or a setting makes no sense.
        RunFailed: the server's name is not known, or it does not tell its model.
    """
    options, clock, control = options or RequestOptions(), clock or SystemClock(), control or LoadControl()
    target, endpoint = parse_target(url, options.endpoint)
    Demand(workload, trace)  # a trace that is missing is told of before anything is sent
    workload = settle_start(workload, answer_s) if answer_s is not None else workload
    dialer = Dialer(target, options)
    await dialer.resolve()
    asker = _Asker(dialer, target, options, clock)
    model, notes = (options.model, ()) if options.model else await asker.served_model()
    orders = Orders(
        target=target,
        endpoint=endpoint,
        options=options,
        model=model,
        workload=workload,
        trace=tuple(trace),
        prompts=prompts or await _synthetic(workload, vocabulary, asker, endpoint, model),
        steps=tuple(steps),
        drain_s=drain_s,
        folder=folder,
        ids=_ids_of(options),
        control=control_file,
    )
    if workload.is_closed and workload.start is Start.SPREAD and workload.users != 1:
        orders = replace(orders, workload=settle_start(workload, await _one_answer_s(orders, control, clock)))
    watch = Watch(metrics if metrics is not None else [f"{target.origin}/metrics"], options=options, now=clock.now)
    found = await watch.reachable()  # also where it is not asked: reading the first page imports what reads it
    if metrics is None and not found:
        watch = Watch([], options=options, now=clock.now)
    started_at = clock.wall()
    workers = workers or OneLoop()
    results = await workers.carry_out(orders, watch=watch, control=control, on_progress=on_progress, clock=clock)
    table, client = join_results(results, workload, ids=orders.ids)
    return LoadResult(
        table=table,
        client=client.replace(notes=workers.notes),
        model=model,
        url=f"{target.origin}{target.path}",
        prompts=orders.prompts.how,
        started_at=started_at,
        source=Source.EMULATED if any(result.emulated for result in results) else Source.MEASURED,
        stopped=next((result.stopped for result in results if result.stopped), None),
        disk=next((result.disk for result in results if result.disk), None),
        telemetry=watch.telemetry,
        notes=(*notes, *_told_of(results[0].changes)),
    )


def _told_of(changes: Sequence[tuple[float, int]]) -> tuple[str, ...]:
    if not changes:
        return ()
    said = ", ".join(f"{users} from {at_s:.0f} s on" for at_s, users in changes)
    return (f"The number of users was changed by hand: {said}.",)


def _ids_of(options: RequestOptions) -> str | None:
    """What the requests' ids begin with: as said, or a word of the run's own; None where none are sent."""
    if options.request_ids == "" or "x-request-id" in {name.lower() for name in options.headers}:
        return None
    return options.request_ids or f"atoll-{secrets.token_hex(3)}-"


async def _one_answer_s(orders: Orders, control: LoadControl, clock: Clock) -> float | None:
    """Seconds of one request of the load's mean lengths; None when it failed.

    It is waited for no longer than users may take to start: a tenth of the run.
    """
    load = with_mean_lengths(orders.workload, orders.trace)
    lengths = {"prompt": Lengths(mean=load.prompt.mean), "output": Lengths(mean=load.output.mean)}
    alone = Workload(users=1, requests=1, start=Start.AT_ONCE, **lengths)
    aside = replace(
        orders, workload=alone, trace=(), steps=(), folder=None, ids=None, control=None, prompts=Aside(orders.prompts)
    )
    sender = Sender(aside, clock=clock)
    await sender.prepare()
    control.attach(sender.stop)
    longest_s = None if load.duration_s is None else MOST_OF_THE_RUN * load.duration_s
    if longest_s is not None:
        asyncio.get_running_loop().call_later(longest_s, sender.stop, "long enough")
    result = await sender.run(clock.now())
    table = join_logs([(result.rows, result.tokens, result.words, result.origin)])
    if len(table) and table.outcome[0] == Outcome.OK:
        return float(table.done_s[0] - table.sent_s[0])
    return longest_s if result.stopped == "long enough" else None


async def _synthetic(
    workload: Workload, vocabulary: Vocabulary | None, asker: "_Asker", endpoint: Endpoint, model: str
) -> Prompts:
    known = vocabulary or await asker.vocabulary(endpoint, model)
    return SyntheticPrompts(
        seed=workload.seed,
        words=known.words,
        overhead=known.overhead,
        tokens_per_word=known.tokens_per_word,
        how=known.how,
    )


class Workers(Protocol):
    """Who carries out the orders: one loop, several processes, actors on several machines."""

    notes: tuple[str, ...]  # what is worth telling of them afterwards

    async def carry_out(
        self,
        orders: Orders,
        *,
        watch: Watch,
        control: LoadControl,
        on_progress: Callable[[Progress], None] | None,
        clock: Clock,
    ) -> list[SenderResult]: ...


class OneLoop:
    """This process's own event loop."""

    notes: tuple[str, ...] = ()

    async def carry_out(
        self,
        orders: Orders,
        *,
        watch: Watch,
        control: LoadControl,
        on_progress: Callable[[Progress], None] | None,
        clock: Clock,
    ) -> list[SenderResult]:
        sender = Sender(orders, clock=clock, on_progress=on_progress)
        await sender.prepare()
        origin = clock.now()
        watch.start(origin)
        control.attach(sender.stop)
        try:
            return [await sender.run(origin)]
        finally:
            await watch.stop()


def join_results(
    results: Sequence[SenderResult], workload: Workload, *, ids: str | None = None
) -> tuple[RecordTable, ClientReport]:
    """One table of all senders' records, each counted from its own start, and what the clients say of themselves.

    `ids`: what the requests' ids begin with.
    """
    table = join_logs([(one.rows, one.tokens, one.words, one.origin) for one in results], ids=ids)
    changed = any(one.changes for one in results)
    users = workload.users if workload.arrivals is Arrivals.CLOSED and not changed else None
    held = None
    if users is not None and workload.think_s == 0:
        start, end = max(one.all_started_s for one in results), min(one.last_sent_s for one in results)
        held = users_held(table, start_s=start, end_s=end)
        if held is not None:  # who pauses because a request failed is not kept waiting by us
            held = min(float(users), held + sum(one.paused_s for one in results) / (end - start))
    backlog = None if workload.arrivals is Arrivals.CLOSED else max(one.backlog_max for one in results)
    client = judge(table, [one.watch for one in results], users=users, held=held, backlog=backlog)
    if len(table):
        mean = sum(one.all_bytes for one in results) / len(table)
        client = client.replace(request_bytes_mean=mean, request_bytes_max=max(one.most_bytes for one in results))
    return table, client


class _Asker:
    """Plain questions to the server, before the run."""

    def __init__(self, dialer: Dialer, target: Target, options: RequestOptions, clock: Clock) -> None:
        self._dialer = dialer
        self._target = target
        self._asking = options
        self._clock = clock

    async def models(self) -> list[dict[str, Any]]:
        """What /v1/models names; raises RunFailed when it does not answer."""
        try:
            plain = await self._ask(self._target.models_path)
        except RunFailed as error:
            raise RunFailed(f"{str(error).rstrip('.')}. Say which model to ask for with --model.") from None
        return models_in(plain)

    async def served_model(self) -> tuple[str, tuple[str, ...]]:
        """The first model, and that it was the first of several; raises RunFailed when there is none."""
        names = [str(model["id"]) for model in await self.models() if model.get("id")]
        if names:
            others = ", ".join(names[1:4]) + (", ..." if len(names) > 4 else "")
            note = f"{names[0]} was asked, the first of {len(names)} models served; --model takes another: {others}."
            return names[0], (note,) if len(names) > 1 else ()
        raise RunFailed(f"{self._target.origin}{self._target.models_path} names no model. Give one with --model.")

    async def vocabulary(self, endpoint: Endpoint, model: str) -> Vocabulary:
        """How many tokens the server's own tokenizer finds in a short and in a long prompt.

        Only vLLM is asked, which says so in /v1/models and has /tokenize; any other server gets a token a word.
        """
        script = self._asking.script
        words = words_of_script(script)
        unknown = BY_WORDS if is_english(script) else by_letters(script)
        try:
            if not any(known.get("owned_by") == "vllm" for known in await self.models()):
                return unknown
            texts = [(number, " ".join((list(words) * 8)[:number])) for number in (8, 200)]
            counts = [(number, await self._count(text, endpoint, model)) for number, text in texts]
        except RunFailed:
            return unknown
        return calibrated(counts[0], counts[1], words=words)

    async def _count(self, text: str, endpoint: Endpoint, model: str) -> int:
        said = {"messages": [{"role": "user", "content": text}]} if endpoint is Endpoint.CHAT else {"prompt": text}
        plain = await self._ask(self._target.tokenize_path, {"model": model} | said)
        count = plain.get("count") if isinstance(plain, dict) else None
        if not isinstance(count, int):
            raise RunFailed(f"{self._target.tokenize_path} gives no count.")
        return count

    async def _ask(self, path: str, body: object = None) -> Any:
        return await ask_plainly(self._dialer, self._target, self._asking, path, now=self._clock.now, body=body)
