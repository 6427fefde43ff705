"""`python -m atoll.web.worker DESCRIPTOR`: a process that answers the page's heavy questions, one after the other."""

import sys

from atoll.outside.workers import Say, answer_questions
from atoll.web.planning import PlanQuestion, answer_plan
from atoll.web.studying import CheckQuestion, RankQuestion, ReportQuestion, check_study, rank_study, write_report


def answer(question: object, say: Say) -> None:
    """Each kind of question has its function."""
    if isinstance(question, PlanQuestion):
        answer_plan(question, say)
    elif isinstance(question, CheckQuestion):
        say(check_study(question))
    elif isinstance(question, RankQuestion):
        say(rank_study(question))
    elif isinstance(question, ReportQuestion):
        say(write_report(question))
    else:
        raise TypeError(type(question).__name__)


if __name__ == "__main__":
    answer_questions(answer, int(sys.argv[1]))
