"""`atoll verify`: the same answers from every replica, and as before a change?"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from atoll.cli.options import ApiKeyFile, Force, Json, OutPath
from atoll.cli.show import out, progress, show_json

if TYPE_CHECKING:
    from atoll.workflows.verify import Verification

_SHOWN = 5  # partings that are printed; --json has all


def register(app: typer.Typer) -> None:
    app.command("verify", epilog="Example: `atoll verify bundle -o before.json`; later: `--against before.json`")(
        verify
    )


def verify(
    targets: Annotated[list[str], typer.Argument(metavar="BUNDLE_DIR|URL...", help="A deployment, or servers by URL.")],
    against: Annotated[
        Path | None, typer.Option("--against", metavar="FILE", help="Answers of an earlier time, written with -o.")
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option("--prompts", metavar="FILE", help="Your own prompts, one a line.")
    ] = None,
    tokens: Annotated[int, typer.Option("--output", min=1, max=4096, help="The most tokens an answer has.")] = 64,
    most: Annotated[
        int, typer.Option("--allow", min=0, metavar="N", help="So many answers may differ before the exit code is 1.")
    ] = 0,
    api_key_file: ApiKeyFile = None,
    output: OutPath = None,
    force: Force = False,
    json: Json = False,
) -> None:
    """Whether every replica answers greedy prompts alike, and as before a change: how many differ, and where."""
    from atoll.outside.files import refuse_to_overwrite, write_whole
    from atoll.workflows import verify as work
    from atoll.workflows.asking import key_of

    if output is not None:
        refuse_to_overwrite(output, force=force)
    before = None if against is None else work.read_answers(against)
    now, found = work.verify(
        targets,
        prompts=work.read_prompts(prompts),
        tokens=tokens,
        api_key=key_of(None, api_key_file, say=_say),
        before=before,
        say=_say,
    )
    if output is not None:
        write_whole(output, now.to_json())
    if json:
        show_json(found)
    else:
        _show(found, kept=output)
    if found.different > most:
        raise typer.Exit(1)


def _say(line: str) -> None:
    progress.print(line, markup=False, soft_wrap=True)


def _show(found: "Verification", *, kept: Path | None) -> None:
    if not found.compared:
        out.print(
            f"{found.prompts} answers of {found.sources[0]}; there is nobody to hold them against yet.", markup=False
        )
    else:
        word = "answers differ" if found.different != 1 else "answer differs"
        out.print(f"{found.different} of {found.compared} {word} ({found.model}).", markup=False, soft_wrap=True)
    for one in found.partings[:_SHOWN]:
        out.print(
            f"{one.source}, prompt {one.number} ({one.prompt!r}): parts from {one.against} after {one.common} of"
            f" {one.length} characters: {one.got!r} instead of {one.expected!r}",
            markup=False,
            soft_wrap=True,
        )
    if len(found.partings) > _SHOWN:
        out.print(f"... and {len(found.partings) - _SHOWN} more; --json has all.", markup=False)
    if kept is not None:
        out.print(f"Answers kept in {kept}; after a change: --against {kept}", markup=False, soft_wrap=True)
