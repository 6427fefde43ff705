"""Stands where vLLM's tests/utils.py stands: its RemoteOpenAIServer starts `atoll emulate` with the options that it knows."""

import contextlib
import json
import os
import shlex
import subprocess
import time
from pathlib import Path
from unittest.mock import MagicMock

import anthropic
import openai
import requests
import stubs
from stubs import free_port

HERE = Path(__file__).parent
WORK = Path(os.environ["SUITE_WORK"])
VLLM_PATH = WORK / "run"
ROCM_EXTRA_ARGS: list[str] = []
ROCM_ENV_OVERRIDES: dict[str, str] = {}
PASSED_ON = ("--max-model-len", "--max-num-seqs", "--max-num-batched-tokens")
IN_THE_LAYOUT = (
    "--enable-prompt-tokens-details",
    "--enable-request-id-headers",
    "--enable-force-include-usage",
    "--return-tokens-as-token-ids",
    "--reasoning-parser",
    "--runner",
    "--max-logprobs",
    "--root-path",
    "--lora-modules",
    "--enable-tokenizer-info-endpoint",
)


def options_of(args) -> dict[str, list[str]]:
    words = [part for arg in args if arg is not None for part in _split(str(arg))]
    options: dict[str, list[str]] = {}
    name = ""
    for word in words:
        if word.startswith("-") and not word.lstrip("-").isdigit():
            name = word
            options[name] = []
        elif name:
            options[name].append(word)
    return options


def _split(arg: str) -> list[str]:
    return arg.split("=", 1) if arg.startswith("--") and "=" in arg else [arg]


class RemoteOpenAIServer:
    DUMMY_API_KEY = "token-abc123"

    def __init__(self, model, vllm_serve_args=(), env_dict_=None, *, env_dict=None, **_):
        options = options_of(vllm_serve_args)
        if "--uds" in options:
            raise RuntimeError("atoll emulate listens on TCP only")
        model = str(options.get("--model", [model])[0])
        model = "local/model" if model.startswith("/") else model
        self.host, self.uds = "127.0.0.1", None
        self.port = int(options["--port"][0]) if "--port" in options else free_port()
        self.show_hidden_metrics = "--show-hidden-metrics-for-version" in options
        argv = [*shlex.split(os.environ["SUITE_ATOLL"]), "emulate", "--layout", str(self._layout(model, options))]
        argv += ["--port", str(self.port), "--speed", "20"]
        for name, values in ({"--max-num-seqs": ["256"]} | options).items():
            argv += [name, values[0]] if name in PASSED_ON else []
        if "--no-enable-prefix-caching" in options:
            argv.append("--no-prefix-caching")
        key = options.get("--api-key", [None])[0] or (env_dict_ or env_dict or {}).get("VLLM_API_KEY")
        argv += ["--api-key", key] if key else []
        self._log = (WORK / f"{self.port}.log").open("w")
        self.proc = subprocess.Popen(argv, cwd=WORK / "hub", stdout=self._log, stderr=subprocess.STDOUT)
        self._wait()
        stubs.Tokenizer.url = self.url_root

    def _layout(self, model: str, options: dict[str, list[str]]) -> Path:
        folder = WORK / "hub" / model
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text((HERE / "config.json").read_text())
        layout = json.loads((HERE / "base.json").read_text())
        names = options.get("--served-model-name", [model])
        extra = [
            "--served-model-name",
            *names,
            *(word for name in IN_THE_LAYOUT if name in options for word in (name, *options[name])),
        ]
        layout["model"], layout["flags"]["extra"] = model, extra
        path = WORK / f"{self.port}.layout.yaml"
        path.write_text(json.dumps(layout))
        return path

    def _wait(self) -> None:
        ends = time.monotonic() + 60
        while time.monotonic() < ends and self.proc.poll() is None:
            with contextlib.suppress(requests.RequestException):
                if requests.get(self.url_for("health"), timeout=2).status_code == 200:
                    return
            time.sleep(0.1)
        raise RuntimeError(f"emulate did not start: {Path(self._log.name).read_text()[-600:]}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.proc.terminate()
        try:
            self.proc.wait(8)
        except subprocess.TimeoutExpired:
            self.proc.kill()
        self._log.close()

    def _shutdown(self):
        self.__exit__()

    @classmethod
    def shutdown_many(cls, servers):
        for server in servers:
            server.__exit__()

    def _get_process_termination_timeout(self):
        return 15.0

    @property
    def url_root(self):
        return f"http://{self.host}:{self.port}"

    def url_for(self, *parts):
        return "/".join([self.url_root, *(part.strip("/") for part in parts if part)])

    def get_client(self, **more):
        return openai.OpenAI(base_url=self.url_for("v1"), **self._settings(more))

    def get_async_client(self, **more):
        return openai.AsyncOpenAI(base_url=self.url_for("v1"), **self._settings(more))

    def get_client_anthropic(self, **more):
        return anthropic.Anthropic(base_url=self.url_for(), **self._settings(more))

    def get_async_client_anthropic(self, **more):
        return anthropic.AsyncAnthropic(base_url=self.url_for(), **self._settings(more))

    def _settings(self, more):
        return {"api_key": self.DUMMY_API_KEY, "max_retries": 0, "timeout": 25} | more


RemoteVLLMServer = RemoteLaunchRenderServer = RemoteOpenAIServerCustom = RemoteOpenAIServer


def _as_it_is(*given, **named):
    return given[0] if len(given) == 1 and callable(given[0]) and not named else lambda function: function


multi_gpu_only = multi_gpu_test = requires_fp8 = large_gpu_test = large_gpu_mark = _as_it_is
create_new_process_for_each_test = _as_it_is


def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    return MagicMock(name=f"tests.utils.{name}")
