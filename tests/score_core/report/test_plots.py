"""The picture for a README."""

import pytest

from benchmarks.readme_figure import main
from score_core.report.inputs import read_inputs
from score_core.report.plots import write_png
from score_core.report.style import palette
from tests.run_files import files, write_run


def test_png_is_written_the_same_twice(tmp_path):
    write_run(tmp_path, problems=40)
    inputs = read_inputs(*files(tmp_path))
    for name in ("a.png", "b.png"):
        write_png(tmp_path / "docs" / name, inputs)
    content = (tmp_path / "docs" / "a.png").read_bytes()
    assert content.startswith(b"\x89PNG")
    assert content == (tmp_path / "docs" / "b.png").read_bytes()


@pytest.mark.parametrize("models", range(1, 13))
def test_light_colours_tell_the_variables_apart(models):
    colours = palette(models)
    assert f"model{models}" in colours
    assert f"model{models + 1}" not in colours
    assert len({light for light, _ in colours.values()}) == len(colours)


def test_readme_figure_is_made_by_its_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([]) == 2
    assert "dvc repro evaluate_base" in capsys.readouterr().err
    write_run(tmp_path, problems=40)
    assert main(["--output", "docs/result.png"]) == 0
    assert (tmp_path / "docs" / "result.png").is_file()
