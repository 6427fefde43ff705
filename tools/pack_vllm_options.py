"""Pack dumps of vLLM's own parsers into src/atoll/data/vllm_options.json.

    python tools/pack_vllm_options.py DUMP_FOLDER

The folder holds one VERSION.json a release, made by tools/dump_vllm_options.py with that release's parser. An option
that stays the same over several releases is written once, with the first and the last of them.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

TARGET = Path(__file__).parents[1] / "src/atoll/data/vllm_options.json"
DEPRECATED = re.compile(r"[\[(]deprecated[\])]|(parameter|--[\w-]+) is deprecated|deprecated: ", re.IGNORECASE)
LONGEST_DEFAULT = 60  # characters; a whole configuration object as a default tells nobody anything


def main(folder: Path) -> None:
    dumps = {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}
    versions = sorted(dumps, key=_numbers)
    spans: dict[str, list[dict[str, Any]]] = {}
    for place, version in enumerate(versions):
        for long, found in dumps[version].items():
            _extend(spans.setdefault(long, []), place, _fact(long, found))
    options = {long: spans[long] for long in sorted(spans)}
    rows = ",\n".join(
        f"{json.dumps(long)}: {json.dumps(rows, separators=(',', ':'))}" for long, rows in options.items()
    )
    TARGET.write_text(f'{{"versions": {json.dumps(versions)},\n"options": {{\n{rows}\n}}}}\n')
    print(f"{TARGET}: {len(versions)} versions, {len(options)} options, {TARGET.stat().st_size} bytes")


def _extend(rows: list[dict[str, Any]], place: int, fact: dict[str, Any]) -> None:
    if rows and rows[-1]["to"] == place - 1 and {k: v for k, v in rows[-1].items() if k not in {"from", "to"}} == fact:
        rows[-1]["to"] = place
    else:
        rows.append({"from": place, "to": place} | fact)


def _fact(long: str, found: dict[str, Any]) -> dict[str, Any]:
    fact: dict[str, Any] = {}
    also = [name for name in found["names"] if name != long]
    if also:
        fact["also"] = also
    if not found["takes_value"]:
        fact["takes_value"] = False
    if found["nargs"] in {"+", "*"}:
        fact["several"] = True
    if found["nargs"] == "?":
        fact["optional_value"] = True
    if found["choices"]:
        fact["choices"] = [str(choice) for choice in found["choices"]]
    if found["default"] not in (None, "==SUPPRESS==") and len(str(found["default"])) <= LONGEST_DEFAULT:
        fact["default"] = found["default"]
    if found["deprecated"] or DEPRECATED.search(found["help"]):
        fact["deprecated"] = True
    return fact


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
