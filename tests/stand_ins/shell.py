"""FakeShell: programs that answer from a script, and are remembered."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from atoll.errors import MissingProgram
from atoll.outside.shell import Finished


class FakeShell:
    """`FakeShell({"nvidia-smi topo -m": "GPU0 ..."})`; an answer is text, (exit code, stdout, stderr) or an error to raise.

    A program is installed when the script names it, or when `installed` does. `ran` keeps what was run, in order.
    """

    def __init__(
        self,
        script: Mapping[str, str | tuple[int, str, str] | Exception] | None = None,
        *,
        installed: Sequence[str] = (),
    ) -> None:
        self._script = dict(script or {})
        self._installed = {*installed, *(shlex.split(line)[0] for line in self._script)}
        self.ran: list[str] = []
        self.envs: list[dict[str, str]] = []
        self.stdins: list[str | None] = []

    def run(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        timeout_s: float = 60.0,
        stdin: str | None = None,
    ) -> Finished:
        line = shlex.join(argv)
        self.ran.append(line)
        self.envs.append(dict(env or {}))
        self.stdins.append(stdin)
        if argv[0] not in self._installed:
            raise MissingProgram(f"`{argv[0]}` is not installed here or not on PATH.")
        answer = self._answer(line)
        if isinstance(answer, Exception):
            raise answer
        code, out, err = (0, answer, "") if isinstance(answer, str) else answer
        return Finished(argv=tuple(argv), exit_code=code, stdout=out, stderr=err)

    def which(self, program: str) -> str | None:
        return f"/usr/bin/{program}" if program in self._installed else None

    def _answer(self, line: str) -> str | tuple[int, str, str] | Exception:
        """The exact line's answer, else that of the longest line that it begins with."""
        fitting = [known for known in self._script if line == known or line.startswith(known + " ")]
        if not fitting:
            raise AssertionError(f"nobody expected `{line}`; the script knows {sorted(self._script)}")
        return self._script[max(fitting, key=len)]
