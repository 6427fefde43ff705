"""Show a command, run it, give its text back."""

import os
import shlex
import shutil
import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from atoll.errors import CommandFailed, MissingProgram


@dataclass(frozen=True, kw_only=True, slots=True)
class Finished:
    """What a program said and how it ended."""

    argv: tuple[str, ...]
    exit_code: int
    stdout: str
    stderr: str

    def check(self) -> "Finished":
        """Itself when the program succeeded; raises CommandFailed with its last words otherwise."""
        if self.exit_code != 0:
            words = (self.stderr.strip() or self.stdout.strip()).splitlines()
            last = " ".join(words[-3:]) if words else "it printed nothing"
            raise CommandFailed(f"`{shlex.join(self.argv)}` ended with {self.exit_code}: {last}")
        return self


class Shell(Protocol):
    """Runs programs; tests hand in a stand-in that answers from a script."""

    def run(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        timeout_s: float = 60.0,
        stdin: str | None = None,
    ) -> Finished: ...

    def which(self, program: str) -> str | None: ...


class RealShell:
    """Runs programs of this machine, without a shell in between."""

    def run(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        timeout_s: float = 60.0,
        stdin: str | None = None,
    ) -> Finished:
        """Wait for the program to end.

        Args:
            argv: program and arguments.
            env: variables to add to this process's own.
            cwd: where it runs.
            timeout_s: after this many seconds it is killed and the exit code is 124.
            stdin: text to give it; without, it gets an empty input.

        Raises:
            MissingProgram: there is no such program.
        """
        try:
            done = subprocess.run(
                list(argv),
                env=environment(env),
                cwd=cwd,
                timeout=timeout_s,
                input=stdin if stdin is not None else "",
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
            )
        except FileNotFoundError:
            raise MissingProgram(f"`{argv[0]}` is not installed here or not on PATH.") from None
        except subprocess.TimeoutExpired:
            return Finished(
                argv=tuple(argv), exit_code=124, stdout="", stderr=f"no end after {timeout_s:g} s, so it was killed"
            )
        return Finished(argv=tuple(argv), exit_code=done.returncode, stdout=done.stdout, stderr=done.stderr)

    def which(self, program: str) -> str | None:
        return shutil.which(program)


def hostname() -> str:
    return socket.gethostname()


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's variables with `extra` on top."""
    return {**os.environ, **(extra or {})}  # noqa: TID251 - the door itself
