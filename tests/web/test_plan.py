"""Plan: what makes no question is a sentence; the stream ends in the answer; what is written is what was shown."""

import io
import json
import re
import zipfile
from dataclasses import replace

import pytest

from atoll.layout.layout import Layout
from atoll.model.catalog import find_card
from atoll.web.pages.plan import TRY, Asked
from atoll.workflows.study import read_study
from stand_ins.control_plane import VIEWER, client_of

HTMX = {"HX-Request": "true"}
QUICK = Asked(box="", gpu="L40S-48GB", gpus="2", model="Qwen/Qwen2.5-7B-Instruct", users="4", prompt="200", output="50")
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 8192,
    "torch_dtype": "bfloat16",
}


def ask(client, **changed):
    return client.get(f"/plan/answer?{replace(QUICK, **changed).query}", headers=HTMX)


def test_the_formula_answers_at_once_and_says_that_it_is_one(client):
    answer = ask(client)
    assert answer.status_code == 200
    for part in ("2xTP1", "formula", "no band is known", 'hx-sse:connect="/plan/live?'):
        assert part in answer.text
    assert "simulated</span>" not in answer.text


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"users": "0"}, "0 users: give at least 1"),
        ({"users": "1000000000000"}, "1,000,000 or less is expected"),
        ({"users": "20000"}, "more than a plan simulates"),
        ({"users": "9" * 40}, "is no number of users"),
        ({"users": "<b>many</b>"}, "is no number of users"),
        ({"load": "rate", "rate": "nan"}, "is no number of requests per second"),
        ({"load": "rate", "rate": "1e300"}, "is no number of requests per second"),
        ({"prompt": "1000000"}, "longer than the context of"),
        ({"output": "-3"}, "is no number of output tokens"),
        ({"ttft": "soon"}, "is not a duration"),
        ({"model": "nobody/<script>alert(1)</script>"}, "is no model that atoll knows"),
        ({"model": "/etc"}, "is no model that atoll knows"),
        ({"model": "models/../../etc"}, "There is no model"),
        ({"box": "../../etc/passwd"}, "There is no box"),
        ({"box": "", "gpu": ""}, "Choose a kept box"),
        ({"gpu": "<img src=x>"}, "GPU"),
        ({"gpus": "1000"}, "has 1 to 16 GPUs, not 1000"),
        ({"model": "Qwen/Qwen2.5-72B-Instruct", "gpus": "1"}, "cannot be served on"),
    ],
)
def test_what_makes_no_question_is_a_sentence(client, changed, said):
    answer = ask(client, **changed)
    assert said in answer.text
    assert 'role="alert"' in answer.text
    assert "hx-sse" not in answer.text
    for forbidden in ("<b>many", "<script>", "<img src=x"):
        assert forbidden not in answer.text


def test_the_page_shows_the_sentence_beside_the_question(client):
    page = client.get("/plan", params={"model": "x", "users": '"><script>'})
    assert page.status_code == 200
    assert "is no model that atoll knows" in page.text
    assert '"><script>' not in page.text


def test_any_load_within_the_limits_is_answered_by_formula(client):
    for changed in ({"users": "10000"}, {"load": "rate", "rate": "10000"}, {"load": "rate", "rate": "0.0001"}):
        assert "hx-sse" in ask(client, **changed).text


def test_the_stream_ends_in_the_answer_which_becomes_files_a_bundle_and_a_study(site, client):
    stream = client.get(f"/plan/live?{QUICK.query}").text
    assert "Simulating 1xTP2, 1 of" in stream
    assert stream.rstrip().endswith("event: over\ndata: {}")
    for part in ("Why 1xTP2", "Tried beside these flags", "Under other loads", "Make a study of these"):
        assert part in stream
    korean = client.get(f"/plan/live?{QUICK.query}", headers={"Accept-Language": "ko"}).text
    said = re.findall(r"<(?:li|p)(?: class=\"(?:mind|faint)\")?>([^<]*)</(?:li|p)>", korean)
    assert len(said) > 8
    assert [sentence for sentence in said if not re.search("[가-힣]", sentence)] == []  # see report/sentences.py
    given = {"asked": QUICK.query, "choice": "2xTP1"}
    shown = client.get("/plan/files", params=given, headers=HTMX).text
    packed = zipfile.ZipFile(io.BytesIO(client.get("/plan/bundle.zip", params=given).content))
    names = {name.partition("/")[2] for name in packed.namelist()}
    assert {"compose.yaml", "nginx.conf", ".env", "layout.yaml"} <= names
    assert all(f"<code>{name}</code>" in shown for name in names)

    deployed = client.post("/plan/deploy", data=given | {"to": "process", "engine": "emulated"})
    assert deployed.status_code == 303
    assert deployed.headers["location"].startswith("/deployments/")
    layout = Layout.parse((site.workspace.root / "layouts" / "2xTP1.yaml").read_text(), origin="layout")
    assert (layout.name, layout.workload.users, len(layout.replicas)) == ("2xTP1", 4, 2)
    assert (site.workspace.root / "bundles" / "2xTP1-process" / "nginx.conf").is_file()

    made = client.post(
        "/plan/study", data={"asked": QUICK.query, "choice": ["2xTP1", "1xTP2"], "name": "밤 <b>시험</b> one"}
    )
    assert made.headers["location"].startswith("/studies/")
    study, box = read_study(site.workspace.root / "studies" / "b-b-one.yaml")
    assert [variant.name for variant in study.variants] == ["2xTP1", "1xTP2"]
    assert (study.workload.users, len(box.gpus)) == (4, 2)
    assert client.post("/plan/study", data={"asked": QUICK.query, "choice": ["9xTP9"]}).status_code == 400
    assert client.post("/plan/study", data={"asked": QUICK.query}).status_code == 400
    assert "atoll render layouts/2xTP1.yaml" in (site.workspace.own / "audit.jsonl").read_text()


def test_a_viewer_plans_and_does_not_deploy(site):
    with client_of(site, secret=VIEWER) as viewer:
        stream = viewer.get(f"/plan/live?{QUICK.query}").text
        assert "Why 1xTP2" in stream
        assert "/plan/deploy" not in stream
        assert "Make a study" not in stream
        for path in ("/plan/deploy", "/plan/study", "/plan/model"):
            assert viewer.post(path, data={"asked": QUICK.query, "choice": "2xTP1"}).status_code == 403


def test_an_uploaded_config_becomes_a_model_of_the_workspace(site, client):
    file = {"file": ("config.json", json.dumps(CONFIG))}
    before = {"Referer": "http://127.0.0.1:8090/plan?users=7&box=&gpu=L40S-48GB&gpus=2"}
    kept = client.post("/plan/model", files=file, data={"name": "우리 <i>모델"}, headers=before)
    assert kept.status_code == 303
    assert "users=7" in kept.headers["location"]
    page = client.get(kept.headers["location"])
    assert "models/우리--i-모델" in page.text
    assert "1xTP1" in page.text
    assert (site.workspace.root / "models" / "우리--i-모델" / "config.json").is_file()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"\x00\xff" * 99, b"[" * 100_000, b" " * (2 << 20)])
def test_a_config_that_is_none_is_a_sentence_and_is_not_kept(site, client, content):
    answer = client.post("/plan/model", files={"file": ("<b>.json", content)}, data={"name": "x"}, headers=HTMX)
    assert answer.status_code in {400, 422}
    assert "Traceback" not in answer.text
    assert "atoll itself failed" not in answer.text
    assert "<b>.json" not in answer.text
    assert not (site.workspace.root / "models").exists()


def test_fifty_megabytes_are_refused_before_they_are_read(client):
    answer = client.post("/plan/model", files={"file": ("config.json", b"x" * (50 << 20))}, data={"name": "x"})
    assert answer.status_code == 413


def test_a_kept_box_that_does_not_name_its_cards_takes_the_kind_from_the_question(site, client):
    page = client.get("/boxes?example=true").text
    capture = page[page.index("<textarea") :].partition(">")[2].partition("</textarea>")[0]
    nameless = site.workspace.root / "boxes" / "topo.txt"
    nameless.parent.mkdir(parents=True)
    nameless.write_text(capture)
    from atoll.web.workspace import Kind

    box = site.workspace.thing_at(nameless, Kind.BOX).id
    assert "name it with" in ask(client, box=box, gpu="").text
    assert "hx-sse" in ask(client, box=box, gpu="H100-NVL-94GB").text


def test_the_example_of_the_first_minute_is_a_question():
    assert find_card(TRY.model) is not None
    assert Asked.parse(TRY.query) == TRY
    assert Asked.parse(QUICK.query) == QUICK
