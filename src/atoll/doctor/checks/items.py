"""How the words of a command are parted: a list's items are handed over as they are."""

from collections.abc import Iterable

from atoll.doctor.checks.places import found
from atoll.doctor.edits import split_item
from atoll.doctor.facts import Facts
from atoll.doctor.finding import Finding
from atoll.doctor.rule import ERROR, SAFE, rule
from atoll.doctor.words import script_words


@rule("VL040", ERROR, risk=SAFE)
def several_words_in_one(facts: Facts) -> Iterable[Finding]:
    """One item of a command list (or one quoted word) holds several words.

    Consequence: Nobody takes it apart: an option and its value in one item are `unrecognized arguments`; a whole
    command line in one item is a program of that name, and the container does not start.

    Evidence: https://github.com/vllm-project/vllm/issues/22072, https://github.com/vllm-project/vllm/issues/4462;
    argparse takes a word with a blank in it for a positional argument.

    Fix: One item for each word, or --name=value; a whole command line as a string, or after `sh -c`.

    Fails:
    ```compose.yaml
    services:
      vllm:
        image: vllm/vllm-openai:v0.32.0
        command:
          - Qwen/Qwen2.5-7B-Instruct
          - --max-model-len 8192
    ```

    Passes:
    ```compose.yaml
    services:
      vllm:
        image: vllm/vllm-openai:v0.32.0
        command:
          - Qwen/Qwen2.5-7B-Instruct
          - --max-model-len
          - "8192"
    ```
    """
    for engine in facts.engines:
        for word in engine.command.unsplit:
            parts = [part.text for part in script_words(word) if not part.operator]
            begin = f"{' '.join(parts[:3])}{' ...' if len(parts) > 3 else ''}"
            yield found(word, f"`{begin}` is one word of {len(parts)}", edits=split_item(word, parts))
