"""Gates as a JUnit file, which build servers show: one test case a gate."""

from collections.abc import Sequence
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from atoll.analyse.gate import Judgement


def junit_text(judgements: Sequence[Judgement], *, suite: str, seconds: float) -> str:
    """The file's text.

    Args:
        judgements: of each gate; one that holds is a failure.
        suite: what was measured.
        seconds: how long that took.
    """
    failures = sum(one.holds for one in judgements)
    counts = {"tests": str(len(judgements)), "failures": str(failures), "errors": "0", "time": f"{seconds:.3f}"}
    root = Element("testsuites", counts)
    group = SubElement(root, "testsuite", {"name": _xml(suite), **counts})
    for one in judgements:
        case = SubElement(group, "testcase", {"classname": _xml(suite), "name": _xml(one.gate), "time": "0"})
        if one.holds:
            SubElement(case, "failure", {"message": _xml(one.sentence), "type": "gate"}).text = _xml(one.sentence)
        else:
            SubElement(case, "system-out").text = _xml(one.sentence)
    indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{tostring(root, encoding="unicode")}\n'


def _xml(text: str) -> str:
    """Without what XML 1.0 has no place for."""
    return "".join(letter for letter in text if letter in "\t\n" or " " <= letter <= "\ud7ff" or letter >= "\ue000")
