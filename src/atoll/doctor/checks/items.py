"""How the words of a command are parted: a list's items are handed over as they are."""

from collections.abc import Iterable

from atoll.doctor.checks.places import found
from atoll.doctor.command_edits import split_item
from atoll.doctor.facts import Facts
from atoll.doctor.finding import Finding
from atoll.doctor.rule import ERROR, SAFE, rule
from atoll.doctor.words import script_words


@rule("VL040", ERROR, risk=SAFE)
def several_words_in_one(facts: Facts) -> Iterable[Finding]:
    for engine in facts.engines:
        for word in engine.command.unsplit:
            parts = [part.text for part in script_words(word) if not part.operator]
            begin = f"{' '.join(parts[:3])}{' ...' if len(parts) > 3 else ''}"
            yield found(word, f"`{begin}` is one item; it should be {len(parts)}", edits=split_item(word, parts))
