"""The doctor page in process: what is uploaded is looked at by itself, mended fix by fix, and given back."""

import io
import json
import re
import stat
import zipfile

import pytest

from atoll.outside.confined import call_confined
from atoll.web.workspace import Kind
from atoll.workflows import uploads as work
from stand_ins.control_plane import VIEWER, client_of

COMPOSE = """services:
  # the only replica
  vllm:
    image: vllm/vllm-openai:v0.32.0
    privileged: true
    command: ["--model", "Qwen/Qwen2.5-7B-Instruct"]
    gpus: all
"""


def zipped(files, **infos):
    kept = io.BytesIO()
    with zipfile.ZipFile(kept, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
        for name, info in infos.items():
            info.filename = name
            archive.writestr(info, "x")
    return kept.getvalue()


def uploaded(client, *files, **fields):
    answer = client.post("/doctor/check", files=[("files", file) for file in files], data=fields)
    assert answer.status_code == 303, answer.text
    return answer.headers["location"]


def fixes(client, place):
    """The keys of the fixes of a page, by rule."""
    page = client.get(place).text
    articles = page.split("<article")[1:]
    keys = ((re.search(r"<code>(\w+)</code>", one)[1], re.search(r'name="fix" value="(\w+)"', one)) for one in articles)
    return {rule: found[1] for rule, found in keys if found}


def downloaded(client, place):
    with zipfile.ZipFile(io.BytesIO(client.get(f"{place}/download").content)) as archive:
        return {name: archive.read(name).decode() for name in archive.namelist()}


def test_only_what_was_accepted_is_in_the_download(client):
    place = uploaded(client, ("stack.zip", zipped({"a/compose.yaml": COMPOSE, "a/notes.bin": b"\xff\x00"})))
    found = fixes(client, place)
    assert {"DC018", "DC005", "DC016"} <= set(found)
    assert client.post(f"{place}/accept", data={"fix": found["DC018"]}).status_code == 303
    later = fixes(client, place)
    assert "DC018" not in later
    client.post(f"{place}/accept", data={"fix": later["DC005"]})
    client.post(f"{place}/accept", data={"fix": fixes(client, place)["DC016"]})
    client.post(f"{place}/undo")
    page = zipfile.ZipFile(io.BytesIO(client.get(f"{place}/download").content))
    assert page.read("a/notes.bin") == b"\xff\x00"
    mended = page.read("a/compose.yaml").decode()
    assert "privileged" not in mended
    assert "healthcheck:" in mended
    assert "stop_grace_period" not in mended
    assert "# the only replica" in mended


def test_each_fix_says_its_class_and_what_it_changes_and_no_key_is_shown(client):
    text = COMPOSE + "    environment: {HF_TOKEN: hf_abcdefghijklmnopqrstuvwxyz0123456789}\n"
    page = client.get(uploaded(client, ("compose.yaml", text))).text
    articles = {re.search(r"<code>(\w+)</code>", one)[1]: one for one in page.split("<article")[1:]}
    assert "safe: cannot change what serves" in articles["DC016"]
    assert "changes behaviour" in articles["DC018"]
    assert "The container loses rights that it has today." in articles["DC018"]
    assert "hf_abcdefghijklmnopqrstuvwxyz0123456789" not in page


def test_a_fix_of_a_text_that_has_changed_is_refused(client):
    place = uploaded(client, ("compose.yaml", COMPOSE))
    found = fixes(client, place)
    client.post(f"{place}/accept", data={"fix": found["DC018"]})
    answer = client.post(f"{place}/accept", data={"fix": found["DC018"]}, headers={"HX-Request": "true"})
    assert answer.status_code == 404
    assert "no longer there" in answer.text
    assert client.post(f"{place}/undo").status_code == 303
    assert client.post(f"{place}/undo").status_code == 400


def test_a_byte_order_mark_and_windows_lines_stay(client):
    text = "\ufeff" + COMPOSE.replace("\n", "\r\n")
    place = uploaded(client, ("compose.yaml", text.encode()))
    client.post(f"{place}/accept", data={"fix": fixes(client, place)["DC018"]})
    mended = downloaded(client, place)["compose.yaml"]
    assert mended == text.replace("    privileged: true\r\n", "")


def test_pasted_text_is_known_by_what_it_says(client):
    page = client.get(uploaded(client, text="server { location / { proxy_pass http://grafana:3000; } }")).text
    assert "<h1>nginx.conf</h1>" in page
    assert "finds no fault" in page
    assert "compose.yaml, line" in client.get(uploaded(client, text=COMPOSE)).text


def test_a_viewer_is_shown_the_findings_and_nothing_is_kept(site):
    with client_of(site, secret=VIEWER) as viewer:
        answer = viewer.post("/doctor/check", data={"text": COMPOSE})
        assert answer.status_code == 200
        assert "vllm is privileged" in answer.text
        assert "looked at and not kept" in answer.text
        assert "Accept this fix" not in answer.text
    assert not (site.workspace.own / "uploads").exists()


def test_uploads_go_after_a_day_or_by_their_reader(site, client):
    first, second = uploaded(client, text=COMPOSE), uploaded(client, text=COMPOSE)
    assert client.post(f"{first}/delete").status_code == 303
    assert client.get(first).status_code == 404
    folder = site.workspace.own / second.replace("/doctor/", "uploads/")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    note = folder / "upload.json"
    note.write_text(json.dumps(json.loads(note.read_text()) | {"made_at": 1.0}))
    assert "None. What you upload" in client.get("/doctor").text
    assert not folder.exists()


def test_nothing_that_an_upload_names_is_read_from_this_machine(client, tmp_path):
    (tmp_path / "secret.env").write_text("PASSWORD=hunter2hunter2\n")
    (tmp_path / "config.json").write_text('{"model_type": "stolen-type"}')
    text = COMPOSE.replace("gpus: all", f"gpus: all\n    env_file: {tmp_path}/secret.env").replace(
        "Qwen/Qwen2.5-7B-Instruct", str(tmp_path)
    )
    page = client.get(uploaded(client, ("compose.yaml", text), ("nginx.conf", "include /etc/passwd;\n"))).text
    assert not re.search("hunter2|stolen-type|root:x", page)


def test_a_bundle_of_the_workspace_is_looked_at_and_its_secrets_are_not_shown(site, client):
    bundle = site.workspace.root / "bundle"
    bundle.mkdir()
    (bundle / "layout.yaml").write_text("x: 1\n")
    (bundle / "nginx.conf").write_text("events {}\n")
    (bundle / ".env").write_text("VLLM_API_KEY=sk-verysecret4711\nMODEL=x\n")
    (bundle / "compose.yaml").write_text(
        COMPOSE.replace("gpus: all", "gpus: all\n    environment: [HF_TOKEN=sk-verysecret4711]")
    )
    (bundle / "link.yaml").symlink_to("/etc/passwd")
    (thing,) = site.workspace.things(Kind.BUNDLE)
    place = uploaded(client, bundle=thing.id)
    page = client.get(place).text
    assert "•••" in page
    assert "sk-verysecret4711" not in page
    assert set(downloaded(client, place)) == {"compose.yaml", "layout.yaml", "nginx.conf"}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("/etc/cron.d/x.yaml", "from the root of a disk"),
        ("C:/x.yaml", "from the root of a disk"),
        ("..\\x.yaml", "from the root of a disk"),
        ("a/../../x.yaml", "leads out of its own folder"),
        ("a\nb.yaml", "no name for a file"),
        ("n" * 201, "no name for a file"),
    ],
)
def test_names_that_lead_out_are_refused_in_a_sentence(client, name, said):
    answer = client.post("/doctor/check", files=[("files", ("s.zip", zipped({name: "x"})))])
    assert answer.status_code == 400
    assert said in answer.text


def link():
    made = zipfile.ZipInfo("link")
    made.external_attr = (stat.S_IFLNK | 0o777) << 16
    return made


def encrypted():
    data = bytearray(zipped({"compose.yaml": "x"}))
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(mark) + place] |= 1
    return bytes(data)


def overstated():
    """An archive that declares a gigabyte."""
    data = bytearray(zipped({"compose.yaml": "x"}))
    place = data.index(b"PK\x01\x02") + 24
    data[place : place + 4] = (1 << 30).to_bytes(4, "little")
    return bytes(data)


def understated():
    """A bomb that declares a byte."""
    data = bytearray(zipped({"compose.yaml": b"\0" * (40 << 20)}))
    for mark, place in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        at = data.index(mark) + place
        data[at : at + 4] = (1).to_bytes(4, "little")
    return bytes(data)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: zipped({"a.yaml": b"\0" * (64 << 20)}), "more than 4 MB together"),
        (overstated, "more than 4 MB together"),
        (understated, "no archive that can be read"),
        (lambda: zipped({f"{n}.yaml": "" for n in range(5000)}), "More than 200 files"),
        (lambda: zipped({}, link=link()), "is a link"),
        (encrypted, "encrypted"),
        (lambda: zipped({"a.yaml": "x" * 500})[:-40], "no archive that can be read"),
        (lambda: zipped({"a.yaml": "x", "./a.yaml": "y"}), "is there twice"),
        (lambda: zipped({}), "no file in this upload"),
    ],
)
def test_bombs_links_and_broken_archives_are_refused_in_a_sentence(client, make, said):
    answer = client.post("/doctor/check", files=[("files", ("s.zip", make()))], follow_redirects=True)
    assert said in answer.text
    assert "Traceback" not in answer.text


def test_what_takes_too_much_is_left_unread(client):
    with pytest.raises(work.InputError, match="took more than the 1 seconds"):
        call_confined(_spin, what="x", cpu_s=1)
    with pytest.raises(work.InputError, match="8 MiB that are given"):
        call_confined(bytearray, 64 << 20, what="x", memory_bytes=8 << 20)


def _spin():
    while True:
        pass


def test_an_empty_question_is_answered_with_what_to_do(client):
    answer = client.post("/doctor/check", data={"text": " "}, headers={"HX-Request": "true"})
    assert answer.status_code == 400
    assert "Paste a file, or choose some" in answer.text
    for users in ("-3", "9" * 5000):  # Python reads no number of more than 4,300 digits
        assert client.post("/doctor/check", data={"text": "x", "users": users}).status_code == 400
    assert client.post("/doctor/check", data={"text": "x", "gpu": "no-such"}).status_code == 400
