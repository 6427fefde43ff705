"""What the doctor says of files that another command makes or starts: the same findings, as warnings on stderr."""

from collections.abc import Sequence

from atoll.cli.show import progress
from atoll.doctor.finding import Finding, Severity


def show_warnings(findings: Sequence[Finding], *, folder: str | None = None) -> None:
    """Errors and warnings a line each, with where to read more; infos are for `atoll doctor` itself."""
    serious = [finding for finding in findings if finding.severity != Severity.INFO]
    for finding in serious:
        place = f"{finding.file}:{finding.line}" if finding.line else finding.file
        progress.print(
            f"{finding.severity.value} {finding.rule} {place}: {finding.what}.", markup=False, soft_wrap=True
        )
    if serious:
        more = f"atoll doctor {folder}" if folder else f"atoll doctor --explain {serious[0].rule}"
        progress.print(f"The fixes: `{more}`", markup=False, soft_wrap=True)
