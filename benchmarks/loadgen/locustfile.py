"""Locust's fast client with its own reading of the event stream: what a careful user of Locust would write."""

import json
import os
import time
from pathlib import Path

from locust import FastHttpUser, events, task

TTFT: list[float] = []
ITL = [0.0, 0]


class Reader(FastHttpUser):
    @task
    def chat(self) -> None:
        body = {
            "model": "truth",
            "messages": [{"role": "user", "content": "the of and to in is that for it as was with be by on not"}],
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        sent = time.perf_counter()
        first = last = 0.0
        with self.client.post("/v1/chat/completions", json=body, stream=True, catch_response=True) as answer:
            while piece := answer._response.readline(b"\n\n"):  # noqa: SLF001 - no public way to read as bytes come
                now = time.perf_counter()
                if b'"content":" ' in piece:
                    if first:
                        ITL[0] += now - last
                        ITL[1] += 1
                    else:
                        first = now
                        TTFT.append(now - sent)
                    last = now
            answer.success()


@events.quitting.add_listener
def write(**_: object) -> None:
    told = {"ttft": TTFT, "itl_mean": ITL[0] / ITL[1] if ITL[1] else None}
    Path(os.environ["LOCUST_OUT"]).write_text(json.dumps(told))
