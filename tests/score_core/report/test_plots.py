"""The picture for a README."""

from benchmarks.readme_figure import main
from score_core.report.inputs import read_inputs
from score_core.report.plots import COLOUR, write_png
from tests.run_files import write_run


def test_png_is_written_the_same_twice(tmp_path):
    write_run(tmp_path, problems=40)
    inputs = read_inputs(tmp_path)
    for name in ("a.png", "b.png"):
        write_png(tmp_path / "docs" / name, inputs)
    content = (tmp_path / "docs" / "a.png").read_bytes()
    assert content.startswith(b"\x89PNG")
    assert content == (tmp_path / "docs" / "b.png").read_bytes()


def test_light_colours_tell_the_variables_apart():
    assert len(set(COLOUR.values())) == len(COLOUR)


def test_readme_figure_is_made_by_its_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([]) == 2
    assert "dvc repro evaluate_base" in capsys.readouterr().err
    write_run(tmp_path, problems=40)
    assert main(["--output", "docs/result.png"]) == 0
    assert (tmp_path / "docs" / "result.png").is_file()
