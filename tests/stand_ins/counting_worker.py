"""A worker that counts, fails or never ends, as it is asked to."""

import sys

from atoll.errors import InputError
from atoll.outside.workers import answer_questions


def count(question, say):
    if "fail" in question:
        raise InputError(question["fail"])
    if "for_ever" in question:
        say("begun")
        while True:
            pass
    if "import" in question:
        say("begun")
        import stand_ins.slow_to_import

        while stand_ins.slow_to_import:
            pass
    if "imported" in question:
        say("stand_ins.slow_to_import" in sys.modules)
        return
    for number in range(question["count"]):
        say(number)


if __name__ == "__main__":
    answer_questions(count, int(sys.argv[1]))
