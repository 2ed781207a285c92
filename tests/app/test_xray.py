"""`groundup xray`, from the command line to a page."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from groundup.app.cli import main
from groundup.formats.folder import save_model
from groundup.text.tokenizer import Tokenizer
from groundup.train.checkpoint import write_tensors
from groundup.xray.look import xray

TEXT = "The sea is wide, the sea is deep"


@pytest.fixture
def folder(tmp_path: Path, tiny_model, tokenizer: Tokenizer) -> Path:  # type: ignore[no-untyped-def]
    """A run's folder: a model, two snapshots and a log of samples."""
    model = tiny_model()
    run = tmp_path / "run"
    save_model(run, model, tokenizer, card="")
    for step in (1, 2):
        weights = {name: one.detach() / (4 - step) for name, one in model.named_parameters()}
        place = run / "snapshots" / f"step-{step}"
        place.mkdir(parents=True)
        write_tensors(place / "model.safetensors", weights, {"format": "pt"})
    return run


def looked(folder: Path, out: Path, *more: str) -> dict[str, Any]:
    assert main(["xray", str(folder), "--out", str(out), *more]) == 0
    found = re.search(r'id="data">(.*?)</script>', out.read_text(), re.DOTALL)
    assert found is not None
    data: dict[str, Any] = json.loads(found[1])
    return data


def test_a_page_of_the_model_its_snapshots_and_a_heads_contribution(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "page.html"
    data = looked(folder, out, "--text", TEXT, "--without", "1.3", "0.0")
    names = [view["name"] for view in data["views"]]
    assert names == ["run", "without 1.3 and 0.0", "step 1", "step 2"]
    assert "".join(data["tokens"][1:]) == TEXT
    seen = xray(folder, TEXT)
    assert data["views"][0]["loss"] == pytest.approx(seen.loss, abs=1e-4)
    removed = xray(folder, TEXT, without=[(1, 3), (0, 0)])
    assert data["views"][1]["loss"] == pytest.approx(removed.loss, abs=1e-4)
    losses = [view["loss"] for view in data["views"]]
    assert len(set(losses)) == 4, "each view is another model"
    said = capsys.readouterr().out
    assert f"{seen.loss:.3f} nats" in said and f"({removed.loss - seen.loss:+.3f})" in said
    assert str(out) in said
    # Its own page is replaced, but no other file.
    assert len(looked(folder, out, "--text", TEXT, "--tokens", "5")["tokens"]) == 5
    # A browser shows a page by its ending.
    assert main(["xray", str(folder), "--text", TEXT, "--out", str(tmp_path / "named")]) == 0
    assert (tmp_path / "named.html").is_file() and not (tmp_path / "named").exists()
    notes = tmp_path / "notes.html"
    notes.write_text("mine")
    assert main(["xray", str(folder), "--text", TEXT, "--out", str(notes)]) == 2
    assert notes.read_text() == "mine"


def test_a_head_is_named_once_and_many_are_counted(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    data = looked(folder, out, "--text", TEXT, "--without", "1.3", "0.0", "1.3", "01.3")
    assert data["views"][1]["name"] == "without 1.3 and 0.0"
    data = looked(folder, out, "--text", TEXT, "--without", "1.3", "0.0", "0.1", "0.2")
    assert data["views"][1]["name"] == "without 4 heads"
    assert '<strong title="1.3, 0.0, 0.1, 0.2">without 4 heads' in out.read_text()


def test_a_single_token_has_no_loss(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    looked(folder, tmp_path / "x.html", "--text", TEXT, "--tokens", "1", "--without", "0.0")
    said = capsys.readouterr().out
    assert "Loss:        none" in said and "nan" not in said


def test_two_models_read_the_same_message(folder: Path, tmp_path: Path, tiny_model) -> None:  # type: ignore[no-untyped-def]
    other = tmp_path / "other"
    model = tiny_model(num_hidden_layers=2, model_type="llama")
    save_model(other, model, Tokenizer.load(folder), card="")
    data = looked(
        folder, tmp_path / "x.html", "--text", "The sea", "--chat", "--against", str(other)
    )
    assert [view["name"] for view in data["views"][:2]] == ["run", "other"]
    assert data["tokens"][0] == "<|im_start|>"
    expected = xray(other, xray(folder, "The sea", chat=True).ids.tolist())
    assert data["views"][1]["loss"] == pytest.approx(expected.loss, abs=1e-4)


def test_two_models_are_compared_up_to_the_shorter_context(
    folder: Path, tmp_path: Path, tiny_model, capsys: pytest.CaptureFixture[str]
) -> None:  # type: ignore[no-untyped-def]
    other, words = tmp_path / "other", ("--text", TEXT, "--without", "1.3")
    short = tiny_model(max_position_embeddings=6, model_type="llama")
    save_model(other, short, Tokenizer.load(folder), card="")
    data = looked(folder, tmp_path / "x.html", *words, "--against", str(other))
    assert f"<h1>{folder.name} and {other.name}</h1>" in (tmp_path / "x.html").read_text()
    assert len(data["tokens"]) == 6
    assert {len(view["losses"]) for view in data["views"]} == {6}
    ids = xray(folder, TEXT).ids.tolist()[:6]
    ours, theirs = xray(folder, ids).loss, xray(other, ids).loss
    assert data["views"][0]["loss"] == pytest.approx(ours, abs=1e-4)
    assert f"other ({theirs - ours:+.3f})" in capsys.readouterr().out
    assert "the shortest context is 6 tokens" in (tmp_path / "x.html").read_text()
    # After the last token as well, all of them use the same one.
    answers = {tuple(view["answers"]) for view in data["views"]}
    assert answers == {(*ids[1:], int(xray(folder, ids).answers[-1]))}
    assert {int(xray(other, ids).answers[-1])} != {data["views"][0]["answers"][-1]}


@pytest.mark.parametrize("chats", [False, True])
def test_without_a_text_it_is_the_runs_last_sample(
    folder: Path, tmp_path: Path, chats: bool
) -> None:
    lines = [
        {"schema": 1, "step": step, "prompt": "The sea", "text": f" is {word}."}
        for step, word in ((1, "deep"), (2, "wide"))
    ]
    (folder / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "run.json").write_text(json.dumps({"traits": {"chats": chats}}))
    text = "".join(looked(folder, tmp_path / "x.html")["tokens"])
    assert ("user\nThe sea<|im_end|>" in text) == chats
    assert " is wide." in text and "deep" not in text


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ([], "--text"),
        (["--text", ""], "--text is empty"),
        (["--chat"], "--chat needs a message"),
        (["--text", "x", "--without", "13"], "LAYER.HEAD"),
        (["--text", "x", "--without", "1.3.1"], "LAYER.HEAD"),
        (["--text", "x", "--without", "2.0"], "0.0 to 1.3"),
        (["--text", "x", "--tokens", "0"], "--tokens"),
        (["--text", "x", "--against", "nowhere"], "nowhere"),
        (["--text", "x", "--out", "no/folder.html"], "mkdir"),
    ],
)
def test_uninspectable_inputs_are_reported_in_a_line(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    more: list[str],
    why: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["xray", str(folder), *more]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and why in said and said.count("\n") == 1
    assert not (tmp_path / "xray.html").exists()


def test_a_model_with_other_tokens_is_not_compared(
    folder: Path, tmp_path: Path, tiny_model, capsys: pytest.CaptureFixture[str]
) -> None:  # type: ignore[no-untyped-def]
    from groundup.text.bpe import train_bpe

    other = tmp_path / "other"
    words = Tokenizer.from_bpe(train_bpe(["Quite another text, of quite other words."] * 4, 300))
    save_model(other, tiny_model(), words, card="")
    words_ = ["xray", str(folder), "--text", TEXT, "--against", str(other)]
    assert main([*words_, "--out", str(tmp_path / "x.html")]) == 2
    assert "vocabulary" in capsys.readouterr().err


def test_scores_over_time_belong_to_their_weights(folder: Path, tmp_path: Path) -> None:
    data = looked(folder, tmp_path / "x.html", "--text", TEXT)
    norms = [np.asarray(view["norms"])[0] for view in data["views"]]
    # Snapshots of the fixture are the weights divided by 3 and by 2.
    np.testing.assert_allclose(norms[1], norms[0] / 3, atol=0.02)
    np.testing.assert_allclose(norms[2], norms[0] / 2, atol=0.02)
