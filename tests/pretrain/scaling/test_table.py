"""Published tables of training runs, and rows that are no runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from groundup.app.cli import main
from groundup.errors import UserError
from groundup.pretrain.scaling.law import Law
from groundup.pretrain.scaling.report import odd_flops
from groundup.pretrain.scaling.table import read_table, set_aside_messages

TRUE = Law(1.8, 400.0, 1200.0, 0.35, 0.35)


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "head",
    [
        "Model Size,Training Tokens,Training FLOP,loss",
        "n,d,c,l",
        "N,D,C,L",
        "Params (M),Tokens (B),training FLOPs,Final Loss",
    ],
)
def test_columns_of_published_tables(tmp_path: Path, head: str) -> None:
    row = "70,1.4,5.9e17,2.5" if "(M)" in head else '70M,"1,400,000,000",5.9e17,2.5'
    found = read_table(written(tmp_path / "t.csv", f"{head}\n{row}\n"))
    assert (found.runs.parameters[0], found.runs.tokens[0]) == pytest.approx((7e7, 1.4e9))
    assert (found.runs.flops[0], found.runs.losses[0]) == (5.9e17, 2.5)


def test_a_comma_is_decimal_with_semicolons_and_groups_thousands_elsewhere(
    tmp_path: Path,
) -> None:
    rows = "n;d;loss\n70M;1.400.000,5;3,12\n70,5M;1e3;2.5\n1,4e6;5;3\n5;1,400,000;3"
    found = read_table(written(tmp_path / "a.csv", rows))
    assert found.runs.losses.tolist() == [3.12, 2.5, 3]
    assert found.runs.tokens.tolist() == [1_400_000.5, 1_000, 5]
    assert found.runs.parameters.tolist() == [7e7, 7.05e7, 1.4e6]
    assert "the comma is the decimal sign" in found.bad[0]
    lines = 'n,d,loss\n"1,400,000.5","2,000",3.12\n5,5,"3,12"\n5,5,"0,125"\n"14,00,000",5,3\n'
    found = read_table(written(tmp_path / "b.csv", lines))
    assert (found.runs.parameters[0], found.runs.tokens[0]) == (1_400_000.5, 2_000)
    assert len(found.runs) == 1 and len(found.bad) == 3
    assert found.bad[0].endswith(
        "loss='3,12' must be a number above 0; the comma parts thousands, as in 1,400"
    )


def test_two_of_three_sizes_are_enough(tmp_path: Path) -> None:
    rows = [{"parameters": 50, "compute_budget": 6e6, "final_loss": 3.0}]
    assert read_table(written(tmp_path / "a.json", json.dumps(rows))).runs.tokens[0] == 2e4
    lines = '{"tokens": 10, "flops": 600, "loss": 3}\n\n{"tokens": 20, "flops": 600, "loss": 3}'
    found = read_table(written(tmp_path / "a.jsonl", lines))
    assert found.runs.parameters.tolist() == [10, 5] and found.lines == (1, 3)
    plain = read_table(written(tmp_path / "b.tsv", "n\td\tloss\n2\t3\t4\n"))
    assert plain.runs.flops.tolist() == [36]
    # In each row, too.
    rows = "N,D,C,loss\n2,3,40,4\n2,3,,4\n2,,36,4\n ,3,36,4\n2,,,4\n2,3,x,4\n2,3,36,\n"
    each = read_table(written(tmp_path / "c.csv", rows))
    assert each.runs.parameters.tolist() == [2] * 4 and each.runs.tokens.tolist() == [3] * 4
    assert each.runs.flops.tolist() == [40, 36, 36, 36] and each.lines == (2, 3, 4, 5)
    assert [one.split(": ")[1].split("=")[0] for one in each.bad] == ["D", "C", "loss"]


@pytest.mark.parametrize(
    ("head", "size"),
    [("Parameters (millions)", "7"), ("n (M)", "7"), ("n (M)", "7M"), ("n (thousand)", "7000")],
)
def test_units_are_in_the_header_or_the_cell(tmp_path: Path, head: str, size: str) -> None:
    path = written(tmp_path / "t.csv", f"\r\r{head};Tokens (billions);loss\r{size};2;3\r")
    runs = read_table(path).runs
    assert (runs.parameters.tolist(), runs.tokens.tolist()) == ([7e6], [2e9])


@pytest.mark.parametrize(
    ("unit", "factor"),
    [
        *(("in millions", 1e6), ("mn", 1e6), ("MM", 1e6), ("M FLOP", 1e6), ("C, M", 1e6)),
        *(("bn", 1e9), ("in B", 1e9), ("GFLOPs", 1e9), ("tn", 1e12), ("trillions of tokens", 1e12)),
        *(("1e18", 1e18), ("x 10^18", 1e18), ("×10**18", 1e18), ("EFLOPs", 1e18), ("K", 1e3)),
        *(("1,000", 1e3), ("1000s", 1e3), ("C", 1), ("FLOPs", 1), ("6 N D", 1), ("total", 1)),
        *(("approx.", 1), ("#", 1), ("excl. embeddings", 1), ("M, millions", 1e6)),
        *(("exact", 1), ("petaFLOPs", 1e15), ("exaFLOP", 1e18), ("zettaFLOPs", 1e21)),
        *(("PF-days", 8.64e19), ("petaflop/s-days", 8.64e19), ("Gtok", 1e9), ("M-toks", 1e6)),
        *(("mio", 1e6), ("mln", 1e6), ("in bln", 1e9), ("megatokens", 1e6)),
    ],
)
def test_units_in_brackets(tmp_path: Path, unit: str, factor: float) -> None:
    rows = {f"Training FLOP ({unit})": 7, "D [1e3]": 2, "loss (nats/token)": 3}
    table = read_table(written(tmp_path / "t.json", json.dumps([rows])))
    found = table.runs.flops[0], table.runs.tokens[0], table.runs.losses[0]
    assert found == pytest.approx((7 * factor, 2e3, 3))


@pytest.mark.parametrize(
    "unit", [*("7e3", "10¹⁸", "M x 2", "M; 1e9"), *("mil", "GPU-hours", "EF", "quadrillion")]
)
def test_an_unknown_unit_is_rejected(tmp_path: Path, unit: str) -> None:
    path = written(tmp_path / "t.csv", f"n ({unit}),d,loss,own\n1,2,3,4\n")
    with pytest.raises(UserError, match=r"unit in 'n \(.*' must be one such as \(M\)"):
        read_table(path)
    # A column that is not used may have any.
    assert len(read_table(path, {"parameters": "own"}).runs) == 1


@pytest.mark.parametrize(
    ("name", "column", "factor"),
    [
        *(("parameters", "params_M", 1e6), ("parameters", "numParamsB", 1e9)),
        *(("parameters", "Model Size in billions", 1e9), ("parameters", "million_params", 1e6)),
        *(("tokens", "train tokens-1e6", 1e6), ("tokens", "kTokens", 1e3)),
        *(("flops", "train_GFLOPs", 1e9), ("flops", "compute_PF_days", 8.64e19)),
        # Names without one.
        *(("parameters", "n_active", 1), ("tokens", "T", 1), ("tokens", "tokens_1000", 1)),
    ],
)
def test_units_after_a_name(tmp_path: Path, name: str, column: str, factor: float) -> None:
    row = {"n": 2, "d": 3, "loss": 4, column: 7}
    table = read_table(written(tmp_path / "t.json", json.dumps([row])), {name: column})
    assert getattr(table.runs, name)[0] == pytest.approx(7 * factor)


@pytest.mark.parametrize("column", ["train_T", "params_mil", "active M", "gpu_hours", "at_1e9"])
def test_an_ambiguous_unit_after_a_name_is_rejected(tmp_path: Path, column: str) -> None:
    path = written(tmp_path / "t.csv", f"n,d,loss,{column}\n1,2,3,4\n")
    with pytest.raises(UserError, match=f"unit in '{column}' must be one such as"):
        read_table(path, {"tokens": column})


def test_a_duplicate_row_counts_once(tmp_path: Path) -> None:
    rows = ["7,8,9,0", "7,8,9,1", "7,8,9,0", "5,8,9,0"]
    path = written(tmp_path / "t.csv", "\n".join(["n,d,loss,seed", *rows]))
    found = read_table(path)
    assert found.runs.parameters.tolist() == [7, 7, 5] and found.lines == (2, 3, 5)
    assert found.bad == (f"{path}, line 4: the same in every column as line 2",)


def test_inconsistent_flops_are_reported(tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", "n,d,c,loss\n1e6,1e7,6e13,3\n2e6,1e7,6e14,2\n3e6,9,,4\n")
    assert odd_flops(read_table(path)) == []
    path = written(tmp_path / "t.csv", "n,d,c,loss\n1e6,1e7,6e13,3\n2e6,1e7,0.12,2\n")
    [said] = odd_flops(read_table(path))
    assert "FLOPs of 1 of 2 runs are far from 6 N D, as in line 3, 1e-15 times it;" in said


def test_invalid_rows_are_set_aside_and_reported(tmp_path: Path) -> None:
    bad = ["x,5,3", "-1,5,3", "5,nan,3", "5,5,", "5,5,inf", "5", "5,5,0"]
    path = written(tmp_path / "t.csv", "\n".join(["n,d,loss", "7,8,9", *bad]))
    found = read_table(path)
    assert len(found.runs) == 1 and len(found.bad) == len(bad)
    assert found.bad[0] == f"{path}, line 3: n='x' must be a number above 0"
    said = set_aside_messages(found.bad)
    assert len(said) == 4 and said[-1] == f"{len(bad) - 3} more rows set aside"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no rows"),
        ("a,b,c\n1,2,3\n", "no column for loss"),
        ("a,b\n1,2\n", r"\(--loss\) and two of parameters .*, tokens .* and FLOPs \(--flops\)"),
        ("loss,n\n1,2\n", r"column for tokens \(--tokens\) or FLOPs \(--flops\) among"),
        ("loss,size_of_it,d\n1,2,3\n", r"column for parameters \(--parameters\) or FLOPs .* among"),
        ("loss,c\n1,2\n", r"for parameters \(--parameters\) or tokens \(--tokens\) among"),
        ("seen,n,d\n1,2,3\n", r"no column for loss \(--loss\) among 'seen, n, d'; name it"),
        ("n,d,loss\nx,y,z\n", "no row of 1"),
        ("[1, 2", "not JSON"),
        ("[1, 2]", "no column"),
        ("{]\n", "no column"),
    ],
)
def test_an_invalid_table_ends_in_one_sentence(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(UserError, match=why) as told:
        read_table(written(tmp_path / "t", text))
    assert "\n" not in str(told.value)
    with pytest.raises(UserError, match="not a column of"):
        read_table(written(tmp_path / "t", "n,d,loss\n1,2,3\n"), {"loss": "missing"})


def test_total_parameters_are_parameters(tmp_path: Path) -> None:
    names = "run,non_embedding_params,embedding_params,total_params,tokens,train_loss,val_loss"
    found = read_table(written(tmp_path / "t.csv", f"{names}\na,70,30,100,2000,3.2,3.1\n"))
    assert found.columns == {"parameters": "total_params", "tokens": "tokens", "loss": "val_loss"}


def test_a_command_from_table_to_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = ["size;seen;what"]
    for flops in (1e18, 1e19, 1e20):
        best, _ = TRUE.optimum(flops)
        for n in best * np.geomspace(0.3, 3, 5):
            d = flops / (6 * n)
            lines.append(f"{n:.6g};{d:.6g};{TRUE.loss(n, d):.6f}")
    path = written(tmp_path / "t.csv", "\n".join(lines) + "\n1;2;oops\n")
    out = tmp_path / "out"
    words = ["scaling", "fit", str(path), "--loss", "what", "--tokens", "seen"]
    assert main([*words, "--bootstraps", "10", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "line 17" in said and "N^0.350" in said
    result = json.loads((out / "result.json").read_text())
    assert result["fit"]["law"]["alpha"] == pytest.approx(0.35, abs=0.005)
    assert result["isoflop"]["a"]["estimate"] == pytest.approx(0.5, abs=0.01)
    page = (out / "report.html").read_text()
    assert page.count("<img") >= 3 and "IsoFLOP" in page
    # The same folder again, but no other one.
    assert main([*words, "--bootstraps", "10", "--out", str(out)]) == 0
    assert main([*words, "--out", str(tmp_path)]) == 2
    assert "other files" in capsys.readouterr().err
