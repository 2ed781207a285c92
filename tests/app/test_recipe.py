"""Recipes: read as a whole, rejected as a whole, run table after table."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import forget_finished
from groundup.align.config import GRPOConfig, PPOConfig
from groundup.app.cli import main
from groundup.app.journey import run_recipe
from groundup.app.recipe import Recipe, read_recipe, shipped
from groundup.app.recipe_folder import find_data, find_model
from groundup.errors import UserError
from groundup.runs.files import read_lines
from groundup.runs.folder import Run
from groundup.runs.request import read_run
from groundup.tune.config import SFTConfig
from miniature import RECIPE, write_miniature

SHORT = RECIPE.replace("steps = 60", "steps = 3")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with training texts, next to which recipes may be."""
    write_miniature(tmp_path)
    return tmp_path


def recipe_of(folder: Path, text: str) -> Recipe:
    (folder / "mine.toml").write_text(text)
    return read_recipe(folder / "mine.toml")


# Reading.


def test_the_quickstart_has_all_stages() -> None:
    recipe = read_recipe("quickstart")
    assert [(t.name, t.stage.name) for t in recipe.tables] == [
        ("data", "data"),
        ("tokenizer", "tokenizer"),
        ("base", "pretrain"),
        ("sft", "sft"),
        ("labels", "best-of-n"),
        ("dpo", "dpo"),
        ("report", "eval"),
    ]
    out = Path("there")
    configs = {t.name: t.config(out).model_dump() for t in recipe.tables}
    assert configs["tokenizer"]["data"] == out / "data"
    assert configs["base"]["tokenizer"] == out / "tokenizer"
    assert configs["sft"]["model"] == out / "base"
    assert configs["dpo"]["model"] == out / "sft"
    assert configs["report"]["models"] == (out / "base", out / "sft", out / "dpo")
    assert all(configs[name]["data"] == out / "data" for name in ("base", "report"))
    assert configs["labels"]["model"] == out / "sft"
    assert configs["dpo"]["data"] == out / "labels"
    assert configs["sft"]["data"] == (out / "data",)
    assert all(config["out"] == out / name for name, config in configs.items())


@pytest.mark.parametrize("name", shipped())
def test_built_in_recipes_are_valid(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if name == "assistant":
        with pytest.raises(UserError, match="make it first: groundup quickstart"):
            read_recipe(name)
        (tmp_path / "quickstart").mkdir()
        (tmp_path / "quickstart" / "config.json").write_text("{}")
    if name in ("alignment", "reasoning"):
        with pytest.raises(UserError, match="make it first: groundup quickstart"):
            read_recipe(name)
        for part in ("base", "sft", "data"):
            (tmp_path / "quickstart" / part).mkdir(parents=True)
            (tmp_path / "quickstart" / part / "config.json").write_text("{}")
    assert read_recipe(name).name == name


def test_rejection_sampling_has_a_control_that_differs_only_in_its_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for part in ("base", "sft", "data"):
        (tmp_path / "quickstart" / part).mkdir(parents=True)
        (tmp_path / "quickstart" / part / "config.json").write_text("{}")
    tables = {table.name: table for table in read_recipe("alignment").tables}
    chosen, control = (
        tables[name].config(tmp_path).model_dump() for name in ("rejection", "rejection-random")
    )
    assert control.pop("out") != chosen.pop("out")
    [answers], [others] = chosen.pop("data"), control.pop("data")
    assert others == answers / "random"
    assert control == chosen
    compared = tables["comparison"].config(tmp_path).model_dump()["models"]
    assert {tmp_path / "rejection", tmp_path / "rejection-random"} <= set(compared)


def test_three_ways_to_fine_tune_have_one_parent_and_equal_tokens(tmp_path: Path) -> None:
    tables = {table.name: table for table in read_recipe("domain").tables}
    ways = [tables[name].config(tmp_path).model_dump() for name in ("full", "lora", "qlora")]
    assert [way["adapter"] for way in ways] == ["none", "lora", "qlora"]
    for name in ("model", "data", "context", "rows", "steps", "seed"):
        assert len({str(way[name]) for way in ways}) == 1
    assert ways[0]["rows"] * ways[0]["steps"] * ways[0]["context"] == 100_352


def test_from_names_an_earlier_table_instead_of_the_one_before(folder: Path) -> None:
    text = RECIPE + '\n[other]\nstage = "sft"\nfrom = "base"\ndata = "talks.jsonl"\n'
    *_, other = recipe_of(folder, text).tables
    assert other.config(Path("x")).model_dump()["model"] == Path("x/base")


def test_folders_are_relative_to_the_recipe(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    config = recipe_of(folder, RECIPE).tables[0].config(Path("x"))
    assert config.model_dump()["data"] == folder / "sea.txt"


def test_a_named_pack_becomes_a_separate_data_stage(folder: Path) -> None:
    pack, tokenizer = recipe_of(folder, '[tokenizer]\nfrom = "pack:sotu"\n').tables
    assert (pack.name, pack.stage.name) == ("pack-sotu", "data")
    assert pack.config(Path("x")).model_dump()["packs"] == ("sotu",)
    assert tokenizer.config(Path("x")).model_dump()["data"] == Path("x/pack-sotu")


def test_files_in_an_earlier_tables_data_are_data(folder: Path) -> None:
    text = '[pool]\nstage = "data"\npacks = ["sotu"]\n' + BASE
    sft = '[sft]\nfrom = "base"\ndata = "{}"\n'
    for inside in ("pool/random", "pool/preferences/heldout.jsonl"):
        *_, table = recipe_of(folder, text + sft.format(inside)).tables
        config = table.config(Path("x"))
        assert isinstance(config, SFTConfig) and config.data == (Path("x") / inside,)
    for inside in ("pool/../secret", "base/random", "pol/random"):
        with pytest.raises(UserError, match="neither a table above nor an existing"):
            recipe_of(folder, text + sft.format(inside))


BASE = '[tokenizer]\nfrom = "sea.txt"\n[base]\nstage = "pretrain"\ndata = "sea.txt"\n'


# A reward model and what is aligned to it, after [base].
ALIGNED = """
[rm]
stage = "reward"
data = "talks.jsonl"
[ppo]
from = "base"
reward = "rm"
critic = "rm"
gold = "judges:count"
prompts = "talks.jsonl"
[grpo]
from = "ppo"
reward = "json"
prompts = "talks.jsonl"
"""


JUDGES = "def count(prompts, completions):\n    return [len(one) for one in completions]\n"


def test_a_reward_is_an_earlier_table_a_verifier_or_a_function(
    folder: Path, tmp_path: Path
) -> None:
    (folder / "judges.py").write_text(JUDGES)
    recipe = recipe_of(folder, BASE + ALIGNED)
    ppo, grpo = (table.config(tmp_path / "out") for table in recipe.tables[-2:])
    assert isinstance(ppo, PPOConfig) and isinstance(grpo, GRPOConfig)
    assert (ppo.reward, ppo.critic) == (str(tmp_path / "out/rm"), tmp_path / "out/rm")
    assert ppo.gold == "judges:count" and grpo.reward == "json"
    assert (ppo.model, grpo.model) == (tmp_path / "out/base", tmp_path / "out/ppo")
    assert recipe.chat_table is recipe.tables[-1]
    # For any length of the pattern: no file can have a name of so many bytes.
    pattern = f"format:^({'|'.join(['yes'] * 100)})$"
    recipe = recipe_of(folder, BASE + ALIGNED.replace('"json"', f'"{pattern}"'))
    assert recipe.tables[-1].config(tmp_path / "out").model_dump()["reward"] == pattern
    # A folder next to the recipe, too.
    (folder / "judge").mkdir()
    described = {"architectures": ["Qwen3ForSequenceClassification"], "num_labels": 1}
    (folder / "judge" / "config.json").write_text(json.dumps(described))
    recipe = recipe_of(folder, BASE + ALIGNED.replace('"rm"', '"judge"'))
    assert recipe.tables[-2].inputs["reward"] == str(folder / "judge")


def test_a_table_with_seeds_is_several_runs(folder: Path) -> None:
    (folder / "judges.py").write_text(JUDGES)
    text = BASE + ALIGNED.replace("[ppo]", "[ppo]\nseeds = 3").replace('"ppo"', '"ppo-1"')
    text += '[worth]\nstage = "comparison"\nmodels = ["base", "ppo", "grpo"]\nreward = "rm"\n'
    recipe = recipe_of(folder, text + 'prompts = "talks.jsonl"\njudge = "rm"\n')
    configs = {table.name: table.config(Path("x")).model_dump() for table in recipe.tables}
    assert list(configs)[-6:] == ["rm", "ppo-0", "ppo-1", "ppo-2", "grpo", "worth"][-6:]
    runs = [configs[f"ppo-{seed}"] for seed in range(3)]
    assert [one.pop("seed") for one in runs] == [0, 1, 2]
    assert [one.pop("out") for one in runs] == [Path(f"x/ppo-{seed}") for seed in range(3)]
    assert runs[0] == runs[1] == runs[2]
    assert configs["grpo"]["model"] == Path("x/ppo-1")
    wanted = ("base", "ppo-0", "ppo-1", "ppo-2", "grpo")
    assert configs["worth"]["models"] == tuple(Path("x") / name for name in wanted)
    assert configs["worth"]["judge"] == "x/rm"


def test_the_model_of_a_recipe_with_seeds_is_its_last_run(folder: Path) -> None:
    text = SHORT.replace("[again]", "[again]\nseeds = 2")
    run_recipe(recipe_of(folder, text), folder / "out")
    assert find_model(folder / "out") == folder / "out" / "again-1"
    assert [read_run(folder / "out" / f"again-{i}")["config"]["seed"] for i in (0, 1)] == [0, 1]


def test_a_seed_is_for_the_tables_that_set_none(folder: Path) -> None:
    text = RECIPE.replace("[base]", "[ base ]  # the first model")
    text = text.replace("[tokenizer]", '["tokenizer"]')
    text = text.replace("[again]", "[again]\nseed = 7")
    text += '\n[more]\nstage = "sft"\nfrom = "base"\ndata = "talks.jsonl"\nseeds = 2'
    (folder / "mine.toml").write_text(text)
    recipe = read_recipe(folder / "mine.toml", seed=3)
    seeds = {table.name: table.config(folder).seed for table in recipe.tables}
    assert seeds == {"tokenizer": 3, "base": 3, "again": 7, "more-0": 0, "more-1": 1}
    # A later start compares the texts.
    assert recipe.text.replace("seed = 3\n", "") == text
    assert recipe_of(folder, recipe.text) == recipe


def test_a_seed_is_needed_to_continue_with_it(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "mine.toml").write_text('[tokenizer]\nfrom = "sea.txt"\nvocab_size = 320\n')
    run = ["run", str(folder / "mine.toml"), "--out", str(folder / "out")]
    for seed in (["--seed", "1"], ["--seed", "1"], ["--seed", "2"], [], ["--seed", "-1"]):
        code = main([*run, *seed])
        said = " ".join(capsys.readouterr().err.split())
        assert code == (0 if seed == ["--seed", "1"] else 2)
        if seed == ["--seed", "-1"]:
            assert "--seed=-1 must be" in said
        elif code:
            assert "[tokenizer] seed was 1, as with --seed 1);" in said
    assert read_run(folder / "out" / "tokenizer")["config"]["seed"] == 1


@pytest.mark.parametrize(
    "text",
    [
        'tokenizer = {from = "sea.txt", vocab_size = 320}\n',
        'tokenizer.from = "sea.txt"\ntokenizer.vocab_size = 320\n',
        '[tokenizer]\nfrom = """\n[tokenizer]\n"""\n',
    ],
)
def test_a_seed_needs_tables_that_are_written_as_tables(folder: Path, text: str) -> None:
    (folder / "mine.toml").write_text(text)
    with pytest.raises(
        UserError, match=r"3 cannot be written into recipe 'mine', .*\[tokenizer\]; set"
    ):
        read_recipe(folder / "mine.toml", seed=3)


PPO = '[ppo]\nfrom = "base"\nprompts = "talks.jsonl"\nreward = "{}"\n'
LABELS = """
[labels]
stage = "best-of-n"
prompts = "talks.jsonl"
reward = "length:4"
"""


@pytest.mark.parametrize(
    ("text", "told"),
    [
        pytest.param(BASE + "seeds = 1\n", ["seeds=1", "from 2"], id="one seed"),
        pytest.param(BASE + "seeds = true\n", ["seeds=True", "whole"], id="seeds of a wrong type"),
        pytest.param(BASE + "seeds = 2\nseed = 1\n", ["seed and seeds"], id="both"),
        pytest.param(
            BASE + 'seeds = 2\n[sft]\nfrom = "base"\ndata = "sea.txt"\n',
            ["2 runs", '"base-0" or "base-1"'],
            id="one of several",
        ),
        pytest.param(
            BASE + 'seeds = 2\n[sft]\ndata = "sea.txt"\n', ["2 runs"], id="several before"
        ),
        pytest.param(
            BASE + 'seeds = 2\n[base-1]\nstage = "sft"\nfrom = "base-0"\ndata = "sea.txt"\n',
            ["[base-1]", "twice"],
            id="a run's name",
        ),
        pytest.param("", ["empty", "[tokenizer]"], id="empty"),
        pytest.param("[base\n", ["TOML", "line 1"], id="syntax"),
        pytest.param("[a]\n[a]\n", ["TOML: Cannot declare 'a' twice"], id="a table twice"),
        pytest.param("steps = 3\n", ["steps", "table"], id="setting outside a table"),
        pytest.param('[a]\nfrom = "sea.txt"\n', ["[a]", "stage", "pretrain"], id="no stage"),
        pytest.param('[a]\nstage = "pretain"\n', ["pretain", "'pretrain'"], id="unknown stage"),
        pytest.param("[a]\nstage = 3\n", ["stage=3", "pretrain"], id="stage of a wrong type"),
        pytest.param("[[sft]]\nsteps = 3\n", ["sft", "table"], id="list of tables"),
        pytest.param('["a/b"]\nstage = "data"\n', ["a/b", "letters"], id="no name for a folder"),
        pytest.param(
            '[tokenizer]\nfrom = "sea.txt"\nvocab_sise = 512\n',
            ["[tokenizer] vocab_sise", "'vocab_size'"],
            id="unknown key",
        ),
        pytest.param(
            '[tokenizer]\nfrom = "sea.txt"\nout = "x"\n', ["out", "table's name"], id="out"
        ),
        pytest.param(
            BASE + 'steps = "many"\n', ["[base] steps", '"many"', "whole number"], id="text for int"
        ),
        pytest.param(BASE + "steps = 2.5\n", ["2.5", "whole number"], id="float for int"),
        pytest.param(BASE + "steps = true\n", ["true", "whole number"], id="bool for int"),
        pytest.param(BASE + "minutes = nan\n", ["minutes", "nan", "finite"], id="not a number"),
        pytest.param(BASE + "minutes = inf\n", ["minutes", "inf", "finite"], id="infinite"),
        pytest.param(BASE + "steps = 0\n", ["steps=0", "at least 1"], id="too small"),
        pytest.param(BASE + 'optimizer = "sgd"\n', ["sgd", "muon", "adamw"], id="no such choice"),
        pytest.param(BASE + "prompt = 1979-05-27\n", ["[base] prompt=1979-05-27 is"], id="date"),
        pytest.param(
            BASE + '[sft]\nfrom = "base"\ndata = [1979-05-27]\n',
            ["[sft] data=1979-05-27", "in quotes"],
            id="date for a path",
        ),
        pytest.param(
            BASE + '[sft]\nfrom = "base"\ndata = "sea.txt"\nlora_rank = 4\n',
            ["[sft] lora_rank=4 has no meaning"],
            id="a rule of several settings",
        ),
        pytest.param(
            '[base]\nstage = "pretrain"\nfrom = "pack:smollm2"\ndata = "sea.txt"\n',
            ['[base] from = "pack:smollm2"', "read from a folder"],
            id="a named model as a tokenizer",
        ),
        pytest.param(
            '[base]\nstage = "pretrain"\nfrom = "sea.txt"\ndata = "sea.txt"\n',
            ['[base] from = "sea.txt"', "contains no tokenizer", "add a [tokenizer]"],
            id="a file as a tokenizer",
        ),
        pytest.param(
            '[sft]\nfrom = "sea.txt"\ndata = "talks.jsonl"\n',
            ['[sft] from = "sea.txt"', "is a file", 'give data with data = "…"'],
            id="a file as a model",
        ),
        pytest.param(
            BASE + PPO.format("judges:sum"),
            ["[ppo] reward", "judges has no function 'sum'"],
            id="a function that is not there",
        ),
        pytest.param(
            BASE + PPO.format("judge:count"),
            ["[ppo] reward", "no module judge that can be imported"],
            id="a module that is not there",
        ),
        pytest.param(
            BASE + PPO.format("judges.py:count"),
            ["[ppo] reward", "no module judges.py"],
            id="a module's file",
        ),
        pytest.param(
            BASE + PPO.format("length:x"),
            ["[ppo] reward", "length:x", "number of words"],
            id="a check that means nothing",
        ),
        pytest.param(
            BASE + PPO.format("judges.py"),
            ['[ppo] reward = "judges.py"', "holds no reward model"],
            id="a file as a reward",
        ),
        pytest.param(
            BASE + PPO.format(".") + 'critic = "judges:count"\n',
            ['[ppo] reward = "."', "holds no reward model"],
            id="a folder that is no reward",
        ),
        pytest.param(
            BASE + PPO.format("json") + 'critic = "judges:count"\n',
            ['[ppo] critic = "judges:count"', "nor an existing folder"],
            id="a function as a critic",
        ),
        pytest.param(
            BASE + '[redteam]\nmodels = ["base"]\nguard = "."\n',
            ['[redteam] guard = "."', "holds no guard"],
            id="a folder that is no guard",
        ),
        pytest.param(
            BASE + LABELS + '[sft]\nfrom = "base"\ndata = "labels/randm"\n',
            ['[sft] data = "labels/randm"', "[labels] makes", "random/conversations"],
            id="data that a table does not make",
        ),
        pytest.param(
            BASE + LABELS + '[sft]\nfrom = "base"\ndata = "labels/random/train.jsonl"\n',
            ["[labels] makes"],
            id="a file that a table does not make",
        ),
        pytest.param("[tokenizer]\n", ["first table", "from"], id="nothing to start from"),
        pytest.param('[tokenizer]\nfrom = "nope"\n', ["nope", "folder"], id="from nowhere"),
        pytest.param("[tokenizer]\nfrom = 3\n", ["from=3", "quotes"], id="from of a wrong type"),
        pytest.param(
            '[tokenizer]\nfrom = "sea.txt"\ndata = "sea.txt"\n', ["both", "data"], id="from twice"
        ),
        pytest.param('[data]\nfrom = "sea.txt"\n', ["data", "starts from nothing"], id="data from"),
        pytest.param(
            BASE + '[sft]\nfrom = "bsae"\ndata = "sea.txt"\n',
            ["bsae", "'base'"],
            id="misspelt from",
        ),
        pytest.param(
            BASE + '[sft]\nfrom = "dpo"\ndata = "sea.txt"\n[dpo]\ndata = "sea.txt"\n',
            ['"dpo"', "not above"],
            id="from below",
        ),
        pytest.param(
            BASE + '[sft]\nfrom = "sft"\ndata = "sea.txt"\n',
            ['[sft] from = "sft"', "not above"],
            id="from itself",
        ),
        pytest.param(
            '[tokenizer]\nfrom = "sea.txt"\n[dpo]\ndata = "sea.txt"\n',
            ["[dpo]", "[tokenizer]", "makes a tokenizer", "model is needed"],
            id="does not fit",
        ),
        pytest.param(
            BASE + '[sft]\nfrom = "tokenizer"\ndata = "sea.txt"\n',
            ["makes a tokenizer", '"base"'],
            id="does not fit by name",
        ),
        pytest.param(
            BASE + '[eval]\nmodels = ["base", "tokenizer"]\ndata = "sea.txt"\n',
            ["models", "makes a tokenizer", '"base"'],
            id="does not fit in a list",
        ),
        pytest.param(
            BASE + '[eval]\nmodels = []\ndata = "sea.txt"\n', ["models", "empty"], id="no models"
        ),
        pytest.param(
            BASE + '[eval]\nmodels = "base"\ndata = "sea.txt"\n', ["models", "list"], id="no list"
        ),
        pytest.param(
            BASE + ALIGNED.replace('reward = "rm"', 'reward = "rmm"'),
            ['[ppo] reward = "rmm"', "'rm'"],
            id="misspelt reward",
        ),
        pytest.param(
            BASE + ALIGNED.replace('critic = "rm"', 'critic = "rmm"'),
            ['[ppo] critic = "rmm"', "'rm'"],
            id="misspelt critic",
        ),
        pytest.param(
            BASE + ALIGNED.replace('reward = "rm"', 'reward = "base"'),
            ["[base] makes a model", "a reward is needed", '"rm"'],
            id="a model as a reward",
        ),
        pytest.param(
            BASE + '[sft]\nfrom = "base"\ndata = "base"\n',
            ["[base] makes a model, and data is needed"],
            id="a model as data",
        ),
        pytest.param(
            BASE + ALIGNED.replace('reward = "rm"', 'reward = "grpo"'),
            ['"grpo"', "not above"],
            id="a reward from below",
        ),
        pytest.param(
            BASE + ALIGNED.replace('from = "base"', ""),
            ["[rm] makes a reward", "a model is needed", '"base"'],
            id="a reward as a model",
        ),
        pytest.param(
            BASE + ALIGNED.replace('reward = "rm"', "reward = 3"),
            ["[ppo] reward=3"],
            id="a reward of a wrong type",
        ),
        pytest.param(
            BASE + ALIGNED + "group_size = 7\n",
            ["episodes=256", "group_size=7", "episodes=252"],
            id="episodes that are no groups",
        ),
        pytest.param('[tokenizer]\nfrom = "pack:wikki"\n', ["wikki", "'wiki'"], id="unknown pack"),
        pytest.param(
            '[sft]\nfrom = "pack:wiki"\ndata = "sea.txt"\n', ["pack", "model"], id="pack as model"
        ),
        pytest.param(
            '[sft]\nfrom = "pack:smollm"\ndata = "sea.txt"\n', ["'smollm2'"], id="unknown model"
        ),
        pytest.param('[data]\npacks = ["wikki"]\n', ["wikki", "'wiki'"], id="unknown pack in data"),
        pytest.param(
            '[sft]\nfrom = "."\ndata = "sea.txt"\n', ["no model"], id="a folder that is no model"
        ),
    ],
)
def test_an_impossible_recipe_is_rejected_before_anything_runs(
    folder: Path, text: str, told: list[str]
) -> None:
    (folder / "judges.py").write_text(JUDGES)
    with pytest.raises(UserError) as refused:
        recipe_of(folder, text)
    for words in told:
        assert words in str(refused.value)


def test_every_wrong_setting_gets_a_line(folder: Path) -> None:
    with pytest.raises(UserError) as refused:
        recipe_of(folder, BASE + 'steps = "many"\nrows = 0\n')
    assert len(str(refused.value).splitlines()) == 2


def test_a_recipe_may_begin_with_a_byte_order_mark(folder: Path) -> None:
    (folder / "mine.toml").write_bytes(b"\xef\xbb\xbf" + BASE.encode())
    assert read_recipe(folder / "mine.toml").tables == recipe_of(folder, BASE).tables


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"\x00\xff\xfe", "UTF-8"),
        (None, "no recipe file"),
        (b"[base]\nsteps = " + b"9" * 5_000, "not valid TOML"),
    ],
)
def test_files_that_are_not_recipes(tmp_path: Path, content: bytes | None, told: str) -> None:
    if content is not None:
        (tmp_path / "x.toml").write_bytes(content)
    with pytest.raises(UserError, match=told):
        read_recipe(tmp_path / "x.toml")
    with pytest.raises(UserError, match="is a folder"):
        read_recipe(tmp_path)


# Running.


def test_a_recipe_runs_once_and_continues_where_it_stopped(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, out = recipe_of(folder, SHORT), folder / "out"
    assert run_recipe(recipe, out) == out
    first = capsys.readouterr().out
    assert first.index("[1/3] tokenizer") < first.index("[2/3] base") < first.index("[3/3] again")
    assert first.rstrip().splitlines()[-1].endswith(f"groundup chat {out}")
    assert (out / "recipe.toml").read_text() == SHORT
    weights = (out / "again" / "model.safetensors").read_bytes()
    lines = len(read_lines(out / "base" / "metrics.jsonl"))

    run_recipe(recipe, out)
    assert capsys.readouterr().out.count("already finished") == 3
    assert len(read_lines(out / "base" / "metrics.jsonl")) == lines

    forget_finished(out / "again")  # as if it had been killed on its way
    for name in ("config.json", "model.safetensors"):
        (out / "again" / name).unlink()
    run_recipe(recipe, out)
    assert "again (sft): resuming" in capsys.readouterr().out
    assert (out / "again" / "model.safetensors").read_bytes() == weights
    assert find_model(out) == out / "again"


def test_a_finished_recipe_recreates_lost_files(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The stages after it began from the same bytes and are skipped."""
    recipe, out = recipe_of(folder, SHORT), folder / "out"
    run_recipe(recipe, out)
    models = ("base", "again")
    weights = {name: (out / name / "model.safetensors").read_bytes() for name in models}
    plan = (out / "base" / "plan.json").read_bytes()

    def lost(name: str) -> list[str]:
        path = out / name
        shutil.rmtree(path) if path.is_dir() else path.write_bytes(b"")
        capsys.readouterr()
        run_recipe(recipe, out)
        assert weights == {one: (out / one / "model.safetensors").read_bytes() for one in models}
        said = capsys.readouterr().out.splitlines()
        return [
            line.split("]")[1].split()[0].strip(":") for line in said if "already finished" in line
        ]

    assert lost("tokenizer/status.json") == ["tokenizer", "base", "again"]
    assert lost("tokenizer") == ["base", "again"]
    assert lost("base/status.json") == ["tokenizer", "base", "again"]
    (out / "base" / ".status.json.copy").unlink()
    assert lost("base/status.json") == ["tokenizer", "again"]
    assert lost("base/plan.json") == ["tokenizer", "base", "again"]
    assert (out / "base" / "plan.json").read_bytes() == plan


def test_a_users_recipe_may_be_called_quickstart(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "quickstart.toml").write_text(RECIPE.partition("[base]")[0])
    assert main(["run", str(folder / "quickstart.toml"), "--out", str(folder / "out")]) == 0
    # Planned without any minutes.
    assert not (folder / "out" / "plan.json").exists()
    assert "15 minutes" not in capsys.readouterr().out


def test_another_recipe_or_foreign_files_are_not_overwritten(folder: Path) -> None:
    text = '[tokenizer]\nfrom = "sea.txt"\nvocab_size = 320\n'
    out = folder / "out"
    run_recipe(recipe_of(folder, text), out)
    before = sorted(path.name for path in out.iterdir())
    with pytest.raises(UserError, match=r"\[tokenizer\] vocab_size was 320.*--out"):
        run_recipe(recipe_of(folder, text.replace("320", "384")), out)
    with pytest.raises(UserError, match=r"\[tokenizer\] was there.*not begun may change"):
        run_recipe(
            recipe_of(folder, text.replace("[tokenizer]", '[second]\nstage = "tokenizer"')), out
        )
    assert sorted(path.name for path in out.iterdir()) == before

    # A comment more is the same recipe.
    run_recipe(recipe_of(folder, "# mine\n" + text), out)
    with pytest.raises(UserError, match=r"other files \(mine.toml, mini"):
        run_recipe(recipe_of(folder, text), folder)
    with pytest.raises(UserError, match="is a file"):
        run_recipe(recipe_of(folder, text), folder / "sea.txt")


def test_stages_that_have_not_begun_may_be_changed(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "one.txt").write_text("One paragraph.")
    wrong = '[tokenizer]\nfrom = "sea.txt"\nvocab_size = 320\n'
    wrong += '[second]\nstage = "tokenizer"\ndata = "one.txt"\nvocab_size = 320\n'
    right, out = wrong.replace("one.txt", "sea.txt"), folder / "out"
    with pytest.raises(UserError, match="too little text"):
        run_recipe(recipe_of(folder, wrong), out)
    # The first is finished, and stays what it is.
    with pytest.raises(UserError, match=r"\[tokenizer\] vocab_size was 320.*not begun may change"):
        run_recipe(recipe_of(folder, right.replace("320", "384", 1)), out)
    run_recipe(recipe_of(folder, right), out)
    assert "tokenizer: already finished" in capsys.readouterr().out
    assert (out / "second" / "tokenizer.json").is_file()
    assert (out / "recipe.toml").read_text() == (out / ".recipe.toml.copy").read_text() == right
    with pytest.raises(UserError, match=r"\[second\] data was"):
        run_recipe(recipe_of(folder, wrong), out)


def test_tables_may_be_added_and_removed_if_no_started_one_changes(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = '[{}]\nstage = "tokenizer"\nvocab_size = {}\ndata = "sea.txt"\n'
    base = '[base]\nstage = "pretrain"\n' + RECIPE.partition('"pretrain"')[2].partition("[ag")[0]
    begun, out = one.format("first", 320) + base, folder / "out"
    run_recipe(recipe_of(folder, begun), out)
    weights = (out / "base" / "model.safetensors").read_bytes()
    capsys.readouterr()
    # At the end, at the beginning and between.
    for text in (
        begun + one.format("last", 384),
        one.format("zeroth", 384) + begun,
        begun.replace("[base]", one.format("unused", 384) + "[base]"),
    ):
        longer = recipe_of(folder, text)
        if "unused" in text:  # the model would begin from another table than it did
            with pytest.raises(UserError, match=r"\[base\] from was 'first'"):
                run_recipe(longer, out)
            continue
        run_recipe(longer, out)
        said = capsys.readouterr().out
        assert said.count("already finished") == 2 and "is rewritten" in said
        assert (out / "recipe.toml").read_text() == text
        run_recipe(longer, out)
        assert capsys.readouterr().out.count("already finished") == 3
        shutil.rmtree(out / ("last" if "last" in text else "zeroth"))
    run_recipe(recipe_of(folder, begun), out)
    assert (out / "base" / "model.safetensors").read_bytes() == weights
    # The table that it began from by its place may be named as well.
    run_recipe(recipe_of(folder, begun.replace("[base]", '[base]\nfrom = "first"')), out)
    assert capsys.readouterr().out.count("already finished") == 4


def test_a_users_reward_is_found_next_to_the_recipe(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.chdir(elsewhere)
    (elsewhere / "judges.py").write_text("def other(prompts, completions):\n    return []\n")
    (folder / "judges.py").write_text("from words import count\n")
    (folder / "words.py").write_text(JUDGES)
    questions = [{"prompt": f"Where does ship {i} sail?"} for i in range(8)]
    (folder / "asked.jsonl").write_text("".join(json.dumps(one) + "\n" for one in questions))
    labels = '[labels]\nstage = "best-of-n"\nprompts = "asked.jsonl"\nreward = "judges:count"\n'
    labels += 'gold = "judges:count"\n'  # which takes nothing off for an answer that does not end
    text = SHORT + labels + "n = 2\nquestions = 4\nmax_new_tokens = 4\nthreads = 1\n"
    out = folder / "out"
    run_recipe(recipe_of(folder, text), out)
    found = read_run(out / "labels")
    paths = {name: Path(one["path"]) for name, one in found["parents"].items()}
    assert paths["reward"] == folder / "judges.py"
    assert paths["reward module words"] == folder / "words.py"
    [first, *_] = read_lines(out / "labels" / "answers.jsonl")
    assert first["gold"] == [len(one) for one in first["texts"]]
    # It is the same journey from the recipe's own folder, and another one with another reward.
    monkeypatch.chdir(folder)
    run_recipe(read_recipe("mine.toml"), out)
    monkeypatch.chdir(elsewhere)
    (folder / "words.py").write_text(JUDGES.replace("len(one)", "0.0"))
    with pytest.raises(UserError, match="begun from another reward module words"):
        run_recipe(read_recipe(folder / "mine.toml"), out)


def test_a_script_does_not_run_its_own_recipe_recursively(folder: Path) -> None:
    (folder / "mine.toml").write_text(BASE + PPO.format("script:count"))
    (folder / "script.py").write_text(
        f"{JUDGES}\nfrom pathlib import Path\nfrom groundup.app.journey import run_recipe\n"
        "from groundup.app.recipe import read_recipe\n"
        "with open(Path(__file__).with_name('started'), 'a') as file:\n    file.write('x')\n"
        "recipe = Path(__file__).with_name('mine.toml')\n"
        "run_recipe(read_recipe(recipe), recipe.with_name('out'))\n"
    )
    with pytest.raises(UserError, match=r"script is imported for its reward .*__main__"):
        read_recipe(folder / "mine.toml")
    assert (folder / "started").read_text() == "x"


def test_a_broken_link_is_reported(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "out").symlink_to(folder / "gone")
    assert main(["run", str(folder / "miniature.toml"), "--out", str(folder / "out")]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "out is a link to" in said and "gone', which is not there; make that folder" in said


def test_a_list_written_as_a_table_is_shown_its_form(folder: Path) -> None:
    columns = RECIPE.replace('"talks.jsonl"', '"talks.jsonl"\ncolumns = {prompt = "question"}')
    with pytest.raises(UserError, match=r'must be a list.*columns = \["prompt=question"\]'):
        recipe_of(folder, columns)


def test_one_folder_belongs_to_one_process(folder: Path) -> None:
    out = folder / "out"
    out.mkdir()
    code = (
        "import sys; from pathlib import Path; from groundup.runs.folder import lock_folder\n"
        f"lock = lock_folder(Path({str(out)!r})); print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        with pytest.raises(UserError, match="another process"):
            run_recipe(recipe_of(folder, RECIPE), out)
        other.communicate("")
    assert not (out / "recipe.toml").exists()


# Finding.


def model_folder(path: Path) -> None:
    path.mkdir(parents=True)
    (path / "config.json").write_text("{}")


def test_the_model_of_a_recipe_is_its_last_existing_chat_model(tmp_path: Path) -> None:
    tables = '[base]\nstage = "pretrain"\n[sft]\n[dpo]\n[more]\nstage = "pretrain"\n[report]\n'
    (tmp_path / "recipe.toml").write_text(tables)
    with pytest.raises(UserError, match="no finished model yet"):
        find_model(tmp_path)
    for made, found in (("base", "base"), ("sft", "sft"), ("more", "sft"), ("dpo", "dpo")):
        model_folder(tmp_path / made)
        assert find_model(tmp_path) == tmp_path / found
    assert find_model(tmp_path / "base") == tmp_path / "base"


def test_the_data_of_a_recipe_is_its_first(tmp_path: Path) -> None:
    tables = '[data]\n[tokenizer]\n[labels]\nstage = "best-of-n"\n'
    (tmp_path / "recipe.toml").write_text(tables)
    with pytest.raises(UserError, match="no data yet; rerun the command"):
        find_data(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    (other / "recipe.toml").write_text('[sft]\nfrom = "pack:smollm2"\ndata = "mine.jsonl"\n')
    with pytest.raises(UserError, match="no data yet; it makes none itself"):
        find_data(other)
    for name in ("labels", "data"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "data.json").write_text("{}")
        assert find_data(tmp_path) == tmp_path / name
    assert find_data(tmp_path / "labels") == tmp_path / "labels"
    text = f'[tokenizer]\nfrom = "{tmp_path.as_posix()}"\n'
    [table] = recipe_of(tmp_path, text).tables
    assert table.config(Path("x")).model_dump()["data"] == tmp_path / "data"
    assert find_data(tmp_path / "mine.jsonl") == tmp_path / "mine.jsonl"


def test_an_invalid_model_is_named(tmp_path: Path) -> None:
    model_folder(tmp_path / "runs" / "sft")
    with pytest.raises(UserError, match=r"contains no model.*sft"):
        find_model(tmp_path / "runs")
    with pytest.raises(UserError, match=r"is a file.*around it: '.*sft'"):
        find_model(tmp_path / "runs" / "sft" / "config.json")
    mine = tmp_path / "mine.jsonl"
    mine.write_text("{}")
    with pytest.raises(UserError, match=r"is a file.*give data with --data"):
        find_model(mine)
    with pytest.raises(UserError, match="no model folder"):
        find_model(tmp_path / "nowhere")
    for stage, told in (("sft", "has no model yet; rerun"), ("tokenizer", "contains no model")):
        out = tmp_path / f"{stage} that was stopped"
        Run.open(out, stage, SFTConfig(model=mine, data=mine, out=out)).close()
        with pytest.raises(UserError, match=told):
            find_model(out)


def test_a_named_model_is_not_downloaded_by_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GROUNDUP_CACHE", str(tmp_path / "cache"))
    (tmp_path / "talks.jsonl").write_text("")
    for named in ("pack:smollm2", "hub:HuggingFaceTB/SmolLM2-135M"):
        path = tmp_path / "tuning.toml"
        path.write_text(f'[sft]\nfrom = "{named}"\ndata = "talks.jsonl"\n')
        [table] = read_recipe(path).tables
        assert str(table.config(tmp_path).model) == named  # type: ignore[attr-defined]
    assert not (tmp_path / "cache").exists()


def test_a_gguf_file_and_a_folder_with_one_are_models(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(b"")
    assert find_model(tmp_path) == find_model(tmp_path / "a.gguf") == tmp_path / "a.gguf"
    (tmp_path / "b.gguf").write_bytes(b"")
    with pytest.raises(UserError, match=r"holds 2 GGUF files; give one of them: a\.gguf, b\.gguf"):
        find_model(tmp_path)


def test_replay_text_may_be_in_an_earlier_tables_data(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(
        '[data]\npacks = ["wiki"]\n[sft]\nfrom = "pack:smollm2"\ndata = "data"\n'
        'replay_data = "data/documents/train.jsonl"\n'
    )
    (sft,) = (table for table in read_recipe(tmp_path / "mine.toml").tables if table.name == "sft")
    assert sft.inputs["replay_data"] == "data/documents/train.jsonl"
    config = sft.config(tmp_path)
    assert isinstance(config, SFTConfig)
    assert config.replay_data == (tmp_path / "data" / "documents" / "train.jsonl",)
    (tmp_path / "mine.toml").write_text(
        '[sft]\nfrom = "pack:smollm2"\ndata = "pack:world"\nreplay = 0.1\nreplay_data = "nowhere"\n'
    )
    with pytest.raises(UserError, match='replay_data = "nowhere" is neither a table above'):
        read_recipe(tmp_path / "mine.toml")
