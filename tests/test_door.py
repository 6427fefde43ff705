"""Files and sockets are touched at the door and where that is the trade: calls, which a linter of imports cannot see.

`.importlinter` names the modules that may import what touches them; this holds what any module could call on a Path or on
asyncio's loop. Both lists are exact: a module that no longer needs its place here loses it.
"""

import ast
from pathlib import Path

import atoll

TOP = Path(atoll.__file__).parent

# What changes or reads a file, as methods of pathlib.Path and functions of os; asking whether it is there is not meant.
ON_FILES = {
    "chmod", "copyfile", "fdopen", "hardlink_to", "mkdir", "open", "read_bytes", "read_text", "rmdir", "symlink_to",
    "touch", "unlink", "write_bytes", "write_text",
}  # fmt: skip
ON_SOCKETS = {
    "bind", "connect_read_pipe", "create_connection", "create_server", "create_subprocess_exec", "create_unix_server",
    "getaddrinfo", "listen", "open_connection", "sock_accept", "sock_connect", "sock_recv", "sock_sendall",
    "start_server",
}  # fmt: skip

FILES = {
    "doctor.rule": "pages and examples of rules that we ship",
    "load.live_log": "events of a run, as they happen",
    "load.mirror": "records of other machines, as they grow",
    "load.records": "what is out of date goes, when the run is whole",
    "load.recover": "what a run that was cut short left, to its last whole row",
    "load.tail": "records are written while requests run; the door's whole files would be rewritten each second",
    "model.catalog": "tables we ship, one a model",
    "run.deployment": "the mark of an update goes when it is through",
    "run.door_log": "the log of the door, as it grows",
    "run.process_update": "an order goes when it was carried out",
    "run.process": "logs that grow, and what an earlier deployment left",
    "store.folder": "a run's own folder: what is out of date goes from it",
    "web": "the workspace: output of jobs as it grows, the log of who did what, what is removed",
    "workflows.uploads": "members of a .zip that is in memory",
}
SOCKETS = {
    "emulate.listen": "the emulated engine listens",
    "load.connect": "connections of the load generator",
    "load.workers": "senders of its own, and their orders on standard input",
    "web.serving": "the control plane listens",
}


def calls(names: set[str]) -> set[str]:
    """Modules, without `outside`, that call one of these on something; tables we ship (importlib.resources) aside."""
    found = set()
    for path in TOP.rglob("*.py"):
        module = ".".join(path.relative_to(TOP).with_suffix("").parts)
        if not module.startswith("outside") and any(map(touches(names), ast.walk(ast.parse(path.read_text())))):
            found.add(module)
    return found


def place(module: str, trades: dict[str, str]) -> str:
    """The module, or the floor that stands for it."""
    floor = module.partition(".")[0]
    return floor if floor in trades else module


def touches(names: set[str]):
    return lambda node: (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in names
        and not is_shipped(node.func.value)
    )


def is_shipped(value: ast.expr) -> bool:
    """`files("atoll").joinpath(...)`."""
    return any(
        isinstance(node, ast.Call) and ast.unparse(node.func) in {"files", "resources.files"}
        for node in ast.walk(value)
    )


def test_files_are_touched_where_it_is_the_trade():
    assert {place(module, FILES) for module in calls(ON_FILES)} == set(FILES)


def test_sockets_are_touched_where_it_is_the_trade():
    assert {place(module, SOCKETS) for module in calls(ON_SOCKETS)} == set(SOCKETS)
