"""The command of the campaigns and the page that it makes."""

from __future__ import annotations

import importlib
import json

import pytest

from facefeat_jax.system.errors import UserError
from facefeat_jax.system.main import run_main
from faults import campaigns, report
from faults.tally import Tally
from run_faults import main


def call(monkeypatch, *words: str) -> int:
    monkeypatch.setattr("sys.argv", ["faults", *words])
    return run_main(main)


def test_a_campaign_is_run_counted_and_reported(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "/somewhere")
    monkeypatch.setenv("JAX_ENABLE_X64", "0")
    assert call(monkeypatch, "run", "labels", "--count", "80", "--out", str(tmp_path)) == 0
    assert "labels: 80 tried, 80 handled, 0 failed" in capsys.readouterr().out
    result = json.loads((tmp_path / "labels.json").read_text())
    assert (result["tried"], result["survived"], result["is_full"]) == (80, 80, False)
    recorded = result["environment"]["variables"]
    assert recorded["JAX_ENABLE_X64"] == "0" and not [name for name in recorded if "CACHE" in name]
    page = tmp_path / "page.md"
    assert call(monkeypatch, "report", str(tmp_path / "labels.json"), "--out", str(page)) == 0
    text = page.read_text()
    assert (
        "| bad inputs, and good ones between them | 80 | 80 | 0 | 0 |" in text
        and "`python scripts/lab/run_faults.py run labels --count 80 --seed 4`" in text
    )
    assert "short run" in text and result["environment"]["python"] in text


def test_what_was_not_survived_is_said_and_fails(tmp_path, monkeypatch, capsys):
    def run(work, *, count, seed):
        tally = Tally("odd", "Odd faults")
        tally.add(True, "a|b")
        tally.add(False, "a|b", "it <b>crashed</b>\nbadly")
        tally.add(False, "crash", "exit code -11")
        return tally

    monkeypatch.setattr("faults.labels.run", run)
    assert call(monkeypatch, "run", "labels", "--out", str(tmp_path)) == 1
    assert "3 tried, 1 handled, 2 failed" in capsys.readouterr().out
    text = "\n".join(report.report([report.read(tmp_path / "labels.json")]))
    assert "| a\\|b | 2 | 1 |" in text and "between them | 3 | 1 | 2 | 1 |" in text
    assert "- a\\|b: it \\<b\\>crashed\\</b\\>\\\\nbadly" in text


def test_wrong_calls_are_one_line(tmp_path, monkeypatch, capsys):
    assert call(monkeypatch, "run", "lables") == 2
    assert "Did you mean 'labels'" in capsys.readouterr().err
    assert call(monkeypatch, "report") == 2 and call(monkeypatch, "report", str(tmp_path / "no.json")) == 2
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(UserError, match="holds no results of a fault campaign"):
        report.read(tmp_path / "other.json")


def test_every_campaign_of_the_table_is_there():
    for name, campaign in campaigns.CAMPAIGNS.items():
        module = importlib.import_module(f"faults.{campaign.module}")
        assert callable(module.run) and campaign.count >= 30, name
