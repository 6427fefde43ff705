"""The stand-ins do what they are told."""

import asyncio

import httpx
import pytest

from atoll.errors import CommandFailed, MissingProgram
from stand_ins.clock import ManualClock
from stand_ins.openai_server import Manners, OpenAiServer
from stand_ins.patience import PATIENCE_S
from stand_ins.shell import FakeShell


def test_fake_shell_answers_from_its_script_and_remembers():
    shell = FakeShell({"nvidia-smi": "general", "nvidia-smi topo -m": "matrix", "false": (1, "", "no")})
    assert shell.run(["nvidia-smi", "topo", "-m"]).stdout == "matrix"
    assert shell.run(["nvidia-smi", "-L"], env={"A": "1"}).stdout == "general"
    assert shell.ran == ["nvidia-smi topo -m", "nvidia-smi -L"]
    assert shell.envs[1] == {"A": "1"}
    with pytest.raises(CommandFailed, match="no"):
        shell.run(["false"]).check()


def test_fake_shell_knows_what_is_not_installed():
    shell = FakeShell(installed=["git"])
    assert shell.which("git") == "/usr/bin/git"
    assert shell.which("docker") is None
    with pytest.raises(MissingProgram):
        shell.run(["docker", "ps"])
    with pytest.raises(AssertionError, match="nobody expected"):
        shell.run(["git", "log"])


def test_manual_clock_wakes_sleepers_in_order():
    async def story() -> list[str]:
        clock, woken = ManualClock(start=0), []

        async def sleeper(name: str, seconds: float) -> None:
            await clock.sleep(seconds)
            woken.append(name)

        tasks = [asyncio.create_task(sleeper("late", 3)), asyncio.create_task(sleeper("early", 1))]
        await asyncio.sleep(0)
        clock.advance(1)
        await asyncio.sleep(0)
        woken.append(f"at {clock.now():g}")
        clock.advance(2)
        await asyncio.gather(*tasks)
        return woken

    assert asyncio.run(story()) == ["early", "at 1", "late"]


def test_a_flowing_clock_oversleeps():
    async def story() -> float:
        clock = ManualClock(start=0, flows=True)
        clock.oversleep_s = 0.25
        await clock.sleep(1)
        return clock.now()

    assert asyncio.run(story()) == 1.25
    assert ManualClock(start=5, wall=100).wall() == 100


def ask(url: str) -> httpx.Response:
    return httpx.post(f"{url}/v1/chat/completions", json={"messages": []}, timeout=PATIENCE_S, trust_env=False)


def test_the_server_streams_one_word_a_chunk():
    with OpenAiServer(Manners(tokens=3)) as server:
        text = ask(server.url).text
    assert text.count('" word"') == 3
    assert '"completion_tokens": 3' in text
    assert text.endswith("data: [DONE]\n\n")


def test_the_server_fails_after_so_many():
    with OpenAiServer(Manners(fail_after=1)) as server:
        assert [ask(server.url).status_code for _ in range(3)] == [200, 500, 500]
        assert len(server.asked) == 3


def test_the_server_cuts_stalls_and_closes():
    with OpenAiServer(Manners(cut_after_chunks=2)) as server, pytest.raises(httpx.HTTPError):
        ask(server.url)
    with OpenAiServer(Manners(stall_after_chunks=1)) as server, pytest.raises(httpx.ReadTimeout):
        httpx.post(
            f"{server.url}/v1/chat/completions", json={}, timeout=httpx.Timeout(PATIENCE_S, read=0.2), trust_env=False
        )
    with OpenAiServer(Manners(close_after=1)) as server:
        assert ask(server.url).status_code == 200
        with pytest.raises(httpx.ConnectError):
            ask(server.url)


def test_the_server_can_be_unhealthy():
    with OpenAiServer(Manners(unhealthy=True)) as server:
        assert httpx.get(f"{server.url}/health", timeout=PATIENCE_S, trust_env=False).status_code == 503
        assert httpx.get(f"{server.url}/v1/models", timeout=PATIENCE_S, trust_env=False).status_code == 200
