"""Stands where vLLM, torch and the hub are imported by vLLM's tests: any name is a mock, a few are what tests look at."""

import importlib
import importlib.abc
import importlib.machinery
import json
import socket
import sys
import types
import urllib.request
from pathlib import Path
from unittest.mock import MagicMock

ROOTS = [
    "vllm",
    "torch",
    "transformers",
    "huggingface_hub",
    "PIL",
    "tests.models",
    "tests.v1.utils",
    "soundfile",
    "librosa",
    "cv2",
    "mteb",
    "lm_eval",
    "ray",
    "schemathesis",
    "hypothesis",
    "tblib",
    "sentence_transformers",
    "mistral_common",
    "torchvision",
    "modelscope",
    "msgspec",
    "safetensors",
    "datasets",
    "partial_json_parser",
    "model_hosting_container_standards",
    "gpt_oss",
]


class NeedsHub(Exception):
    """The test wants what the emulated model's tokenizer has not, such as a chat template."""


class VLLMError(ValueError):
    def __init__(self, *words: object, **_: object) -> None:
        super().__init__(*words)


class Tokenizer:
    """That of the model which is served: the last started server's own, asked over HTTP."""

    url = ""
    all_special_tokens: tuple[str, ...] = ()
    vocab_size = 32_000
    eos_token_id = 2

    def encode(self, text: str, **_: object) -> list[int]:
        return self._ask("tokenize", {"prompt": text})["tokens"]

    def decode(self, tokens: list[int], **_: object) -> str:
        return self._ask("detokenize", {"tokens": tokens})["prompt"]

    def convert_ids_to_tokens(self, tokens: list[int]) -> list[str]:
        return [self.decode([token]) for token in tokens]

    def _ask(self, path: str, body: dict[str, object]) -> dict:
        if not self.url:
            raise NeedsHub(path)
        content = {"Content-Type": "application/json"}
        asked = urllib.request.Request(f"{self.url}/{path}", json.dumps(body).encode(), content)
        with urllib.request.urlopen(asked, timeout=20) as answer:
            return json.load(answer)

    def __getattr__(self, name: str) -> object:
        raise NeedsHub(f"tokenizer.{name}")

    def __call__(self, *_: object, **__: object) -> object:
        raise NeedsHub("tokenizer()")


class Record:
    """Keeps what it is made of."""

    def __init__(self, *values: object, **named: object) -> None:
        self.__dict__.update(named)
        self.args = values

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        return MagicMock()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class ModelConfig:
    """As much of vLLM's as its tests ask for: the vocabulary of the config.json that is served."""

    def __init__(self, **_: object) -> None:
        pass

    def get_vocab_size(self) -> int:
        return json.loads((Path(__file__).parent / "tests" / "config.json").read_text())["vocab_size"]


class Hub:
    """Where a model or an adapter would lie."""

    def snapshot_download(self, repo_id: str, **_: object) -> str:
        return f"/hub/{repo_id}"


def tokenizer(*_: object, **__: object) -> Tokenizer:
    return Tokenizer()


REAL: dict[str, dict[str, object]] = {
    "vllm.version": {"__version__": "0.32.0", "_prev_minor_version": lambda: "0.31"},
    "vllm.exceptions": dict.fromkeys(("VLLMValidationError", "QueueOverflowError", "VLLMError"), VLLMError),
    "vllm.config": {"ModelConfig": ModelConfig},
    "vllm.transformers_utils.repo_utils": {"hf_api": Hub},
    "vllm.tokenizers": {"get_tokenizer": tokenizer},
    "transformers": {"AutoTokenizer": types.SimpleNamespace(from_pretrained=tokenizer)},
    "vllm.v1.engine.exceptions": {"EngineDeadError": type("EngineDeadError", (Exception,), {})},
    "vllm.assets.base": {"VLLM_S3_BUCKET_URL": "http://127.0.0.1:9"},
    "vllm.outputs": {"RequestOutput": Record, "CompletionOutput": Record},
    "vllm.logprobs": {"Logprob": Record},
    "vllm.utils.network_utils": {"get_open_port": free_port},
    "torch": {"iinfo": lambda *_: types.SimpleNamespace(min=-(2**63), max=2**63 - 1)},
}


class Stub(types.ModuleType):
    def __getattr__(self, name: str) -> object:
        if name.startswith("__") and name != "__version__":
            raise AttributeError(name)
        value = self._value(name)
        setattr(self, name, value)
        return value

    def _value(self, name: str) -> object:
        known = REAL.get(self.__name__, {})
        if name in known:
            return known[name]
        if self.__name__ == "vllm" and name in {"envs", "version"}:
            return importlib.import_module(f"vllm.{name}")
        if self.__name__ == "vllm.envs":
            return False
        if name == "__version__":
            return "0.32.0"
        if name[:1].isupper() and name.endswith(("Error", "Exception")):
            return type(name, (Exception,), {})
        mock = MagicMock(name=f"{self.__name__}.{name}")
        if name == "current_platform":
            for kind in ("rocm", "cuda", "xpu", "cpu"):
                getattr(mock, f"is_{kind}").return_value = kind == "cuda"
            mock.device_count.return_value = 1
        return mock


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name: str, path: object = None, target: object = None):
        if any(name == root or name.startswith(f"{root}.") for root in ROOTS):
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        module = Stub(spec.name)
        module.__path__ = []
        module.__file__ = f"/stub/{spec.name}"
        return module

    def exec_module(self, module: object) -> None:
        pass


sys.meta_path.insert(0, Finder())
