"""Ports of this machine: which are free, and who has one that is not."""

import socket
from collections.abc import Iterable
from pathlib import Path

from atoll.outside.processes import read_stat

_LISTEN = "0A"  # /proc/net/tcp, column st


def free_ports(count: int, *, host: str = "127.0.0.1", apart_from: Iterable[int] = ()) -> tuple[int, ...]:
    """So many ports that nobody listens on now, all different. Another program may still be quicker than ours."""
    taken = set(apart_from)
    held: list[socket.socket] = []
    try:
        while len(held) < count:
            candidate = socket.socket()
            candidate.bind((host, 0))
            if candidate.getsockname()[1] in taken:
                candidate.close()
            else:
                held.append(candidate)
        return tuple(candidate.getsockname()[1] for candidate in held)
    finally:
        for candidate in held:
            candidate.close()


def is_free(port: int, *, host: str = "127.0.0.1") -> bool:
    """Whether a server could listen there now."""
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((host, port))
        except OSError:
            return False
    return True


def holder_of(port: int) -> str | None:
    """Who listens on a port, as `nginx (pid 4711)`; None when it cannot be told (another user's process)."""
    inodes = _listening_inodes(port)
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and inodes & _sockets_of(entry):
            stat = read_stat(int(entry.name))
            return f"{stat.name} (pid {entry.name})" if stat is not None else None
    return None


def _listening_inodes(port: int) -> set[str]:
    found: set[str] = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text(encoding="ascii").splitlines()[1:]
        except FileNotFoundError:
            continue
        for line in lines:
            columns = line.split()
            if columns[3] == _LISTEN and int(columns[1].rpartition(":")[2], 16) == port:
                found.add(f"socket:[{columns[9]}]")
    return found


def _sockets_of(process: Path) -> set[str]:
    try:
        handles = list((process / "fd").iterdir())
    except OSError:  # gone meanwhile, or another user's
        return set()
    return {target for handle in handles if (target := _target(handle)).startswith("socket:")}


def _target(handle: Path) -> str:
    try:
        return str(handle.readlink())
    except OSError:  # closed meanwhile
        return ""
