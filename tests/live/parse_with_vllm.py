"""Parse command lines with the parser of the vLLM that runs this file; run by test_vllm.py in vLLM's own environment.

Standard input holds a JSON list of argument lists (without `vllm serve`), standard output a JSON list with null for an
accepted one and the parser's words for a refused one.
"""

import contextlib
import io
import json
import sys


def make_parser():
    from vllm.entrypoints.cli.serve import ServeSubcommand

    try:
        from vllm.utils.argparse_utils import FlexibleArgumentParser
    except ImportError:
        from vllm.utils import FlexibleArgumentParser
    parser = FlexibleArgumentParser()
    ServeSubcommand().subparser_init(parser.add_subparsers(dest="command"))
    return parser


def refusal(parser, words: list[str]) -> str | None:
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            parsed = parser.parse_args(["serve", *words])
    except SystemExit:
        return said.getvalue().strip().splitlines()[-1]
    return None if parsed.model_tag == words[0] else f"the model is {parsed.model_tag}"


if __name__ == "__main__":
    sys.argv = ["vllm", "serve"]
    command_lines = json.load(sys.stdin)
    one = make_parser()
    print("\nANSWER " + json.dumps([refusal(one, words) for words in command_lines]))
