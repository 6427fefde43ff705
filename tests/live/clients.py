"""Real clients against one server, feature by feature: `python clients.py URL [CLIENT ...]` prints one line each.

It runs in any interpreter that has the clients; tests/emulate/test_clients.py and tests/live/test_clients.py start it.
"""

import asyncio
import json
import os
import sys
from collections.abc import Callable
from typing import Any

MODEL = "Qwen/Qwen2.5-32B-Instruct"
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}
ASKED = [{"role": "user", "content": "what is the weather in Rome"}]
Tries = dict[str, Callable[[], Any]]  # feature -> what must be true


def is_trip(text: str) -> bool:
    return set(json.loads(text)) == {"city", "days"}


def trip_class() -> type:
    from pydantic import BaseModel

    class Trip(BaseModel):
        """A trip."""

        city: str
        days: int

    return Trip


def openai(url: str) -> Tries:
    from openai import OpenAI

    client, trip = OpenAI(base_url=f"{url}/v1", api_key="x", max_retries=0), trip_class()
    base = {"model": MODEL, "messages": ASKED}
    chat = client.chat.completions

    def streamed() -> bool:
        options = {"include_usage": True}
        *_, last = chat.create(**base, max_tokens=8, stream=True, stream_options=options)
        return last.usage.completion_tokens == 8

    def called(choice: object) -> bool:
        answer = chat.create(**base, tools=[TOOL], tool_choice=choice)
        return is_trip(answer.choices[0].message.tool_calls[0].function.arguments)

    def responded() -> bool:
        parsed = client.responses.parse(model=MODEL, input="hi", text_format=trip).output_parsed
        with client.responses.stream(model=MODEL, input="hi", max_output_tokens=8) as events:
            text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
            return isinstance(parsed, trip) and events.get_final_response().output_text == text != ""

    named = {"type": "function", "function": {"name": "weather"}}
    return {
        "chat": lambda: chat.create(**base, max_tokens=8).choices[0].message.content,
        "stream": streamed,
        "tools": lambda: all(called(choice) for choice in ("required", "auto", named)),
        "schema": lambda: isinstance(chat.parse(**base, response_format=trip).choices[0].message.parsed, trip),
        "responses": responded,
        "logprobs": lambda: (
            chat.create(**base, max_tokens=2, logprobs=True, top_logprobs=3).choices[0].logprobs.content
        ),
        "several": lambda: len(chat.create(**base, max_tokens=2, n=3).choices) == 3,
        "completions": lambda: (
            len(client.completions.create(model=MODEL, prompt=["a", "b"], max_tokens=2).choices) == 2
        ),
    }


def langchain(url: str) -> Tries:
    from langchain_core.messages import HumanMessage
    from langchain_openai import ChatOpenAI, OpenAI

    trip = trip_class()
    settings = {"base_url": f"{url}/v1", "api_key": "x", "model": MODEL, "max_retries": 0}
    chat = ChatOpenAI(**settings)

    def formed(method: str) -> bool:
        return isinstance(chat.with_structured_output(trip, method=method).invoke("hi"), trip)

    def called(**choice: str) -> bool:
        return chat.bind_tools([trip], **choice).invoke("hi").tool_calls[0]["name"] == "Trip"

    return {
        "chat": lambda: chat.invoke("hi").content,
        "stream": lambda: "".join(part.content for part in chat.stream("hi")),
        "tools": lambda: called() and called(tool_choice="any"),
        "schema": lambda: formed("json_schema") and formed("function_calling"),
        "responses": lambda: ChatOpenAI(**settings, use_responses_api=True).invoke("hi").content,
        "logprobs": lambda: chat.bind(logprobs=True).invoke("hi").response_metadata["logprobs"]["content"],
        "several": lambda: len(ChatOpenAI(**settings, n=2).generate([[HumanMessage("hi")]]).generations[0]) == 2,
        "completions": lambda: OpenAI(**settings, max_tokens=4).invoke("hi"),
    }


def llm(url: str) -> Tries:
    from llm.default_plugins.openai_models import Chat

    chat, trip = (
        Chat("emulated", model_name=MODEL, api_base=f"{url}/v1", supports_schema=True, supports_tools=True),
        trip_class(),
    )
    chat.key = "x"
    seen: list[str] = []

    def weather(city: str) -> str:
        """The weather."""
        seen.append(city)
        return "sun"

    return {
        "chat": lambda: chat.prompt("hi", stream=False).text(),
        "stream": lambda: "".join(chat.prompt("hi")),
        "tools": lambda: chat.chain("hi", tools=[weather]).text() and seen,
        "schema": lambda: is_trip(chat.prompt("hi", schema=trip, stream=False).text()),
    }


def litellm(url: str) -> Tries:
    import litellm as lib

    lib.suppress_debug_info = True
    where = {"api_base": f"{url}/v1", "api_key": "x"}
    base = {"model": f"hosted_vllm/{MODEL}", "messages": ASKED} | where
    form = {"type": "json_schema", "json_schema": {"name": "trip", "schema": SCHEMA}}

    def called(choice: str) -> bool:
        answer = lib.completion(**base, tools=[TOOL], tool_choice=choice)
        return is_trip(answer.choices[0].message.tool_calls[0].function.arguments)

    def streamed() -> str:
        parts = lib.completion(**base, max_tokens=8, stream=True)
        return "".join(part.choices[0].delta.content or "" for part in parts)

    return {
        "chat": lambda: lib.completion(**base, max_tokens=8).choices[0].message.content,
        "stream": streamed,
        "tools": lambda: called("required") and called("auto"),
        "schema": lambda: is_trip(lib.completion(**base, response_format=form).choices[0].message.content),
        "responses": lambda: lib.responses(model=f"openai/{MODEL}", input="hi", **where).output,
        "logprobs": lambda: lib.completion(**base, max_tokens=2, logprobs=True, top_logprobs=2).choices[0].logprobs,
        "several": lambda: len(lib.completion(**base, max_tokens=2, n=2).choices) == 2,
        "completions": lambda: lib.text_completion(model=f"hosted_vllm/{MODEL}", prompt="hi", **where).choices[0].text,
    }


def anthropic(url: str) -> Tries:
    from anthropic import Anthropic

    client = Anthropic(base_url=url, api_key="x", max_retries=0)
    base = {"model": MODEL, "messages": ASKED, "max_tokens": 2000}
    tools = [{"name": "weather", "input_schema": SCHEMA}]
    form = {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}}

    def streamed() -> str:
        with client.messages.stream(**base) as events:
            return events.get_final_text()

    def called(choice: str) -> bool:
        answer = client.messages.create(**base, tools=tools, tool_choice={"type": choice})
        return answer.stop_reason == "tool_use" and set(answer.content[0].input) == {"city", "days"}

    thinking = {"type": "enabled", "budget_tokens": 1024}
    return {
        "chat": lambda: client.messages.create(**base).content[0].text,
        "stream": streamed,
        "tools": lambda: called("auto") and called("any"),
        "schema": lambda: is_trip(client.messages.create(**base, extra_body=form).content[0].text),
        "reasoning": lambda: client.messages.create(**base, thinking=thinking).content[0].type == "thinking",
    }


def instructor(url: str) -> Tries:
    import instructor as lib
    from openai import OpenAI

    trip = trip_class()

    def formed(mode: object) -> bool:
        client = lib.from_openai(OpenAI(base_url=f"{url}/v1", api_key="x"), mode=mode)
        answer = client.chat.completions.create(model=MODEL, messages=ASKED, response_model=trip, max_retries=0)
        return isinstance(answer, trip)

    return {"tools": lambda: formed(lib.Mode.TOOLS), "schema": lambda: formed(lib.Mode.JSON_SCHEMA)}


def agents(url: str) -> Tries:
    import agents as lib
    from openai import AsyncOpenAI

    lib.set_tracing_disabled(True)
    trip, seen = trip_class(), []

    @lib.function_tool
    def weather(city: str) -> str:
        """The weather."""
        seen.append(city)
        return "sun"

    def run(kind: Any, **more: object) -> object:
        async def story() -> object:
            model = kind(model=MODEL, openai_client=AsyncOpenAI(base_url=f"{url}/v1", api_key="x"))
            return (await lib.Runner.run(lib.Agent(name="a", model=model, **more), "hi", max_turns=5)).final_output

        return asyncio.run(story())

    old, new = lib.OpenAIChatCompletionsModel, lib.OpenAIResponsesModel
    return {
        "chat": lambda: run(old),
        "tools": lambda: run(old, tools=[weather]) and seen,
        "schema": lambda: isinstance(run(old, output_type=trip), trip),
        "responses": lambda: run(new, tools=[weather]) and isinstance(run(new, output_type=trip), trip),
    }


def pydantic_ai(url: str) -> Tries:
    from pydantic_ai import Agent, NativeOutput
    from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
    from pydantic_ai.providers.openai import OpenAIProvider

    provider, trip = OpenAIProvider(base_url=f"{url}/v1", api_key="x"), trip_class()
    old, new = (kind(MODEL, provider=provider) for kind in (OpenAIChatModel, OpenAIResponsesModel))

    def streamed() -> str:
        async def story() -> str:
            async with Agent(old).run_stream("hi") as answer:
                return "".join([part async for part in answer.stream_text(delta=True)])

        return asyncio.run(story())

    def called() -> bool:
        agent, seen = Agent(old, output_type=trip), []

        @agent.tool_plain
        def weather(city: str) -> str:
            """The weather."""
            seen.append(city)
            return "sun"

        return isinstance(agent.run_sync("hi").output, trip) and bool(seen)

    return {
        "chat": lambda: Agent(old).run_sync("hi").output,
        "stream": streamed,
        "tools": called,
        "schema": lambda: isinstance(Agent(old, output_type=NativeOutput(trip)).run_sync("hi").output, trip),
        "responses": lambda: isinstance(Agent(new, output_type=trip).run_sync("hi").output, trip),
    }


CLIENTS = {f.__name__: f for f in (openai, langchain, llm, litellm, anthropic, instructor, agents, pydantic_ai)}


def main() -> None:
    os.environ.update(OPENAI_API_KEY="x", LITELLM_LOCAL_MODEL_COST_MAP="True")
    for name in sys.argv[2:] or CLIENTS:
        try:
            tries = CLIENTS[name](sys.argv[1])
        except ImportError as error:
            print(f"{name}: not installed: {error}")
            continue
        for feature, attempt in tries.items():
            try:
                said = "works" if attempt() else "gave something else"
            except Exception as error:  # noqa: BLE001 - whatever a client says of it
                said = f"{type(error).__name__}: {str(error)[:300]}"
            print(f"{name} {feature}: {said}", flush=True)


if __name__ == "__main__":
    main()
