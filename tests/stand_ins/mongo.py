"""A server that speaks MongoDB's protocol: SecantusDB in a process of its own, when `secantusd-py` is installed.

It is never imported and is no dependency.
"""

import shutil
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from stand_ins.patience import PATIENCE_S, wait_until


def secantus():
    beside = Path(sys.executable).with_name("secantusd-py")
    return str(beside) if beside.exists() else shutil.which("secantusd-py")


class MongoServer:
    """A SecantusDB process on loopback, with its data in `folder`."""

    def __init__(self, folder):
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.start()

    def start(self):
        argv = [secantus(), "--host", "127.0.0.1", "--port", str(self.port), "--storage-path", str(self.folder)]
        self.process = subprocess.Popen(
            [*argv, "--sync-on-commit"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_until(self.listens)

    def listens(self):
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(timeout=PATIENCE_S)

    def url(self, database):
        return f"mongodb://127.0.0.1:{self.port}/{database}"


@contextmanager
def mongo_server(folder):
    """One that runs; a test that asks for it is skipped where there is none."""
    if secantus() is None:
        pytest.skip("secantusd-py is not installed: no MongoDB-protocol server to test against")
    pytest.importorskip("pymongo")
    server = MongoServer(folder)
    try:
        yield server
    finally:
        server.kill()
