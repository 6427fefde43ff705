"""`python -m atoll.web.planner DESCRIPTOR`: a process that works out plans for the page, one after the other."""

import sys

from atoll.outside.workers import answer_questions
from atoll.web.planning import answer_plan

if __name__ == "__main__":
    answer_questions(answer_plan, int(sys.argv[1]))
