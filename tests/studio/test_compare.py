"""What the tab Compare shows: tables of results, filtered, and their Pareto front."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest
from tests.studio.pieces import Piece

from semhitok.experiments.comparison import comparison
from semhitok.experiments.results import Result, save_result
from semhitok.studio import compare
from semhitok.studio.compare import EVERYTHING, Selection
from semhitok.studio.workspace import bundled


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    figures = {"small <b>": (64, 18.0), "large": (128, 20.0), "worse": (128, 19.0), "none": (None, 21.0)}
    for name, (bits, psnr) in figures.items():
        for seed in (0, 1):
            metrics = {"psnr": psnr + seed} | ({} if bits is None else {"bits": float(bits)})
            save_result(tmp_path, Result(name, seed, {}, metrics, 1.0, {}))
    return tmp_path


def rows(html: str) -> list[list[str]]:
    body = html.split("<tbody>")[1].split("</tbody>")[0]
    return [[cell.strip() for cell in Piece(line).texts] for line in (f"<tr>{part}" for part in body.split("<tr>")[1:])]


def test_all_experiments_that_have_both_figures_best_first(folder):
    found = rows(compare.draw_table([folder], Selection(), "bits", "psnr"))
    assert [line[0] for line in found] == ["large", "worse", "small <b>"]
    assert found[0] == ["large", "front", "128", "20.50 ± 0.50", "2"]
    assert found[1] == ["worse", "128", "19.50 ± 0.50", "2"]
    picture = ElementTree.fromstring(compare.draw_picture([folder], Selection(), "bits", "psnr"))
    assert len(list(picture.iter("circle"))) == 3
    assert "2 on the Pareto front" in picture.get("aria-label")


def test_words_filter(folder):
    assert [s.experiment for s in compare.select([folder], Selection(words="LAR ge"))] == ["large"]
    assert compare.draw_table([folder], Selection(words="nosuch"), "bits", "psnr") == ""
    assert "None of these experiments" in compare.draw_picture([folder], Selection(words="none"), "bits", "psnr")
    assert compare.tables_in([folder]) == [EVERYTHING]


def test_the_bundled_ablations_are_shown_beside_the_published_values():
    folder = bundled("docs/ablations")
    assert folder is not None
    tables = compare.tables_in([folder])
    assert {"key-design", "unitok-road", "mllm-adapters"} <= set(tables)
    written = (folder / "key-design.md").read_text().splitlines()
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in written if line.startswith("|")]
    shown = compare.draw_table([folder], Selection("key-design"), "bits", "psnr")
    assert [[cell for cell in line if cell] for line in table[2:]] == rows(shown)
    assert Piece(shown).text.count("paper: rFID") == 1
    assert compare.figures_in(compare.select([folder], Selection()))[0] in (
        "psnr",
        "bits",
        "ssim",
        "perceptual",
        "frechet",
    )


def test_several_folders_and_the_comparison_of_systems(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("comparison")
    for name, psnr in (("vqgan", 20.0), ("bsq", 21.0)):
        (row,) = comparison([name]).rows
        save_result(other, Result(row.experiment.name, 0, {}, {"psnr": psnr, "bits": 768.0}, 1.0, {}))
    assert compare.tables_in([folder, other]) == [EVERYTHING, "comparison"]
    shown = rows(compare.draw_table([folder, other], Selection("comparison"), "bits", "psnr"))
    assert [(line[0], line[1]) for line in shown] == [("vqgan", "none"), ("bsq", "none")]
    assert len(compare.select([folder, other], Selection())) == 6


def test_other_folders_are_a_sentence(tmp_path):
    with pytest.raises(ValueError, match="holds no results"):
        compare.select([tmp_path], Selection())
