"""One door for several models: njs reads the body's `model` and hands the request to the named location of its pool."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from atoll.render.parts import Part

PARSED_BYTES = 65536  # a body up to this is parsed, 0.4 ms at most; a larger one is searched, which takes a fifth


@dataclass(frozen=True, kw_only=True, slots=True)
class ServedModel:
    """A model behind the door: what requests call it, and the pool that serves it."""

    name: str
    pool: str
    max_model_len: int


def models_part(models: Sequence[ServedModel]) -> Part:
    """What several models need: the script, the list of them, and no way in for a model that is not there."""
    listed = {
        "object": "list",
        "data": [
            {
                "id": model.name,
                "object": "model",
                "created": 0,
                "owned_by": "vllm",
                "root": model.name,
                "parent": None,
                "max_model_len": model.max_model_len,
            }
            for model in models
        ],
    }
    return Part(
        constants=(
            f"const POOLS = {json.dumps({model.name: location_of(model.pool) for model in models})};",
            f"const MODELS = {json.dumps(json.dumps(listed))};",
            _FIND,
        ),
        functions={"by_model": _BY_MODEL, "models": _MODELS},
    )


def location_of(pool: str) -> str:
    return f"@{pool}"


# In a string of JSON every quote is escaped, so the pattern finds keys alone; the first may belong to an inner object.
_FIND = r"""// what the request calls its model: of JSON, or of the form in which audio comes
function named(r) {
  const text = r.requestText || '';
  if (text.length <= PARSED_BYTES && text.charAt(0) === '{') {
    try {
      return JSON.parse(text).model;
    } catch (e) {
      return undefined;
    }
  }
  const found = /"model"\s*:\s*"([^"\\]{1,200})"/.exec(text)
    || /name="model"\r\n\r\n([^\r\n]{1,200})\r\n/.exec(text);
  return found ? found[1] : undefined;
}""".replace("PARSED_BYTES", str(PARSED_BYTES))

_BY_MODEL = """// to the pool of the model that is asked for; vLLM's own words for one that is not there
function by_model(r) {
  const model = named(r);
  if (typeof model === 'string' && Object.prototype.hasOwnProperty.call(POOLS, model)) {
    r.internalRedirect(POOLS[model]);
    return;
  }
  const asked = model === undefined ? '' : model;
  const words = 'The model `' + asked + '` does not exist. Valid aliases: ' + Object.keys(POOLS).join(', ') + '.';
  r.headersOut['Content-Type'] = 'application/json';
  r.return(404, JSON.stringify({ error: { message: words, type: 'NotFoundError', param: 'model', code: 404 } }));
}"""

_MODELS = """// each engine knows only its own
function models(r) {
  r.headersOut['Content-Type'] = 'application/json';
  r.return(200, MODELS);
}"""
