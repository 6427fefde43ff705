"""Plain processes are replaced while they serve: what stays keeps its process, what fails is taken back."""

import asyncio

import httpx
import pytest

from atoll.errors import InputError, StartFailed
from atoll.model.read import read_model
from atoll.outside.clock import SystemClock
from atoll.outside.files import read_text
from atoll.outside.processes import is_alive
from atoll.outside.shell import RealShell
from atoll.render import render_bundle
from atoll.run.deployment import MARK_FILE, Program, read_state
from atoll.run.process import down, status, up
from atoll.run.process_update import settle_beside, update
from stand_ins.layouts import MODEL
from stand_ins.patience import PATIENCE_S, until

CLOCK, SHELL = SystemClock(), RealShell()
BODY = {"messages": [{"role": "user", "content": "one two three"}], "max_tokens": 40, "stream": True}


def files_of(layout, folder):
    return dict(render_bundle(settle_beside(layout, folder), read_model(MODEL), to="process").files)


async def put(folder, files, **more):
    await update(
        folder, files, shell=SHELL, clock=CLOCK, say=lambda _: None, drain_s=PATIENCE_S, timeout_s=PATIENCE_S, **more
    )


def programs(folder) -> dict[int, Program]:
    return {program.number: program for program in read_state(folder).replicas}


def test_replicas_are_replaced_while_users_stream(bundle, layout):
    """Another policy touches no replica, a cut update goes on, a bad one is taken back; no answer fails or is cut."""
    counted = {"ok": 0, "bad": 0, "over": 0}

    async def user(client, url):
        while not counted["over"]:
            # a kept connection may be closed by the reload just when it is used again
            headers = {"Connection": "close"}
            async with client.stream("POST", f"{url}/v1/chat/completions", json=BODY, headers=headers) as answer:
                text = "".join([piece async for piece in answer.aiter_text()])
            counted["ok" if answer.status_code == 200 and "[DONE]" in text else "bad"] += 1

    async def story():
        deployment = await up(bundle, shell=SHELL, clock=CLOCK, timeout_s=PATIENCE_S)
        try:
            async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE_S) as client:
                users = [asyncio.create_task(user(client, deployment.url)) for _ in range(4)]
                first = programs(bundle)
                await put(bundle, files_of(layout.replace(router=layout.router.replace(policy="round_robin")), bundle))
                assert programs(bundle) == first
                assert "least_conn;" not in read_text(bundle / "nginx.conf")

                new = layout.replace(flags=layout.flags.replace(max_num_seqs=16))
                cut = asyncio.create_task(put(bundle, files_of(new, bundle)))
                await until(lambda: 0 in programs(bundle) and programs(bundle)[0].name == "replica-0-2")
                cut.cancel()
                await asyncio.gather(cut, return_exceptions=True)
                (bundle / MARK_FILE).write_text('{"pid": 1, "started": 1}')  # whoever wrote it is gone
                note = (await status(bundle, shell=SHELL, clock=CLOCK)).note
                assert note is not None
                assert "was cut short; `atoll update" in note

                await put(bundle, files_of(new, bundle))
                second = programs(bundle)
                assert second[1].name == "replica-1-2"
                assert {program.made_of for program in second.values()}.isdisjoint(p.made_of for p in first.values())
                assert not is_alive(first[1].process)

                bad = files_of(new, bundle)
                bad["process.yaml"] = bad["process.yaml"].replace("- emulate\n", "- doctor\n", 1)
                with pytest.raises(StartFailed, match="what ran before serves"):
                    await put(bundle, bad)
                third = programs(bundle)
                assert third[1] == second[1]
                assert third[0].made_of == second[0].made_of
                assert "doctor" not in read_text(bundle / "process.yaml")
                assert not (bundle / MARK_FILE).exists()

                seen = await status(bundle, shell=SHELL, clock=CLOCK)
                assert (seen.state, seen.note) == ("up", None)
                counted["over"] = 1
                await asyncio.gather(*users)
        finally:
            await down(bundle, shell=SHELL, clock=CLOCK)

    asyncio.run(story())
    assert counted["bad"] == 0
    assert counted["ok"] > 10


def test_what_is_not_up_is_not_updated(bundle, layout):
    with pytest.raises(InputError, match="is not up; `atoll up"):
        settle_beside(layout, bundle)
