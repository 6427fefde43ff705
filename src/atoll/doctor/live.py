"""What only this machine tells: its GPUs, its Docker, its containers. Asked only with `--live`, through the door."""

import json
import re
from dataclasses import dataclass

from atoll.doctor.facts import Host
from atoll.doctor.recognise import redirecting_bridges
from atoll.errors import AtollError
from atoll.inventory.box import Box
from atoll.inventory.probe import probe_box
from atoll.outside.shell import Finished, Shell

CONTAINERS = "docker-inspect.json"  # the name under which running containers appear in findings


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What was learnt; None for what was not there to ask."""

    host: Host
    box: Box | None
    containers: str | None  # `docker inspect` of those that run


def ask_machine(shell: Shell) -> Machine:
    """Ask nvidia-smi, Docker, nginx and lspci; a program that is missing or fails leaves its facts unknown."""
    host = Host(
        networks=_names(_run(shell, "docker", "network", "ls", "--format", "{{.Name}}")),
        runtimes=_runtimes(shell),
        nginx_version=_nginx_version(shell),
        acs_redirect=_bridges(_run(shell, "lspci", "-vvv")),
    )
    return Machine(host=host, box=_box(shell), containers=_containers(shell))


def _run(shell: Shell, *argv: str) -> Finished | None:
    """What the program said; None when it is missing or failed."""
    if shell.which(argv[0]) is None:
        return None
    done = shell.run(list(argv), timeout_s=20.0)
    return done if done.exit_code == 0 else None


def _names(done: Finished | None) -> frozenset[str] | None:
    return frozenset(done.stdout.split()) if done is not None else None


def _runtimes(shell: Shell) -> frozenset[str] | None:
    """Docker's runtimes, with the toolkit's hook, which serves `--gpus` without being a runtime."""
    done = _run(shell, "docker", "info", "--format", "{{json .Runtimes}}")
    if done is None:
        return None
    try:
        plain = json.loads(done.stdout)
    except ValueError:
        return None
    hook = [name for name in ("nvidia-container-runtime-hook", "nvidia-ctk") if shell.which(name) is not None]
    return frozenset([*plain, *hook]) if isinstance(plain, dict) else None


def _nginx_version(shell: Shell) -> str | None:
    done = _run(shell, "nginx", "-v")
    found = re.search(r"nginx/(\d+\.\d+\.\d+)", done.stderr + done.stdout) if done is not None else None
    return found[1] if found is not None else None


def _bridges(done: Finished | None) -> tuple[str, ...] | None:
    return tuple(redirecting_bridges(done.stdout)) if done is not None and "ACSCtl:" in done.stdout else None


def _box(shell: Shell) -> Box | None:
    try:
        return probe_box(shell)
    except AtollError:
        return None


def _containers(shell: Shell) -> str | None:
    listed = _run(shell, "docker", "ps", "-q")
    ids = listed.stdout.split() if listed is not None else []
    done = _run(shell, "docker", "inspect", *ids) if ids else None
    return done.stdout if done is not None else None
