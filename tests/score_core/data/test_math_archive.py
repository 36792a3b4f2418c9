"""MATH in its authors' layout: folder, tar file and address give the same rows; mistakes are said plainly."""

import hashlib
import json
import tarfile
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from score_core.data.math_archive import read_math_archive
from score_core.data.splits import prepare
from score_core.errors import UserError
from tests.configs import config

PROBLEMS = {
    "train/algebra/10.json": ("Find $2+3$.", "Level 1", "Algebra", "It is $\\boxed{5}$."),
    "train/algebra/9.json": ("Find $7-3$.", "Level 2", "Algebra", "So $\\boxed{4}$."),
    "train/geometry/1.json": ("A square of side $3$ has what area?", "Level ?", "Geometry", "$\\boxed{9}$"),
    "test/algebra/1.json": ("Find $10^2$.", "Level 5", "Algebra", "We get $\\boxed{100}$."),
}


def write_problem(root, name, problem):
    file = root / "MATH" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(dict(zip(("problem", "level", "type", "solution"), problem, strict=True))))


@pytest.fixture
def archive(tmp_path):
    """An unpacked archive, and what other programs leave in one."""
    for name, problem in PROBLEMS.items():
        write_problem(tmp_path, name, problem)
    (tmp_path / "MATH/train/algebra/._9.json").write_bytes(b"\x00")
    (tmp_path / "MATH/README.json").write_text("{}")
    return tmp_path / "MATH"


def packed(archive, mode="w"):
    path = archive.parent / "MATH.tar"
    with tarfile.open(path, mode) as tar:
        tar.add(archive, "MATH")
    return path


def data(path, **options):
    options = {"fixture": None, "validation_share": 0.5, "conflicting_answers": "refuse"} | options
    sizes = {"train": None, "validation": None, "test": None}
    content = {"source": "math_archive", "path": str(path), "sizes": sizes, **options}
    return config(data=content, watched={"data": str(path)}).data


def rows_of(source):
    return [(row.number, row.id, row.problem, row.answers, row.labels) for row in source.train.rows]


def test_every_form_gives_the_same_rows(archive, serve):
    whole = read_math_archive(data(archive), ("level",))
    assert rows_of(whole) == [
        (n, name, PROBLEMS[name][0], (PROBLEMS[name][3],), (("level", level),))
        for n, (name, level) in enumerate(
            [("train/algebra/9.json", "2"), ("train/algebra/10.json", "1"), ("train/geometry/1.json", "?")]
        )
    ]
    assert whole.revision is None
    for mode in ("w", "w:gz"):
        tar = packed(archive, mode)
        found = read_math_archive(data(tar), ("level",))
        assert rows_of(found) == rows_of(whole) and found.test.rows == whole.test.rows
        assert found.revision == f"sha256 {hashlib.sha256(tar.read_bytes()).hexdigest()}"
    assert rows_of(read_math_archive(data(serve(tar)), ("level",))) == rows_of(whole)
    # The folder above, too: people unpack it anywhere.
    assert rows_of(read_math_archive(data(archive.parent), ("level",))) == rows_of(whole)


def test_the_gold_answer_is_the_box_and_subjects_keep_their_names(archive):
    whole = data(archive).model_dump()
    reward = {"extractor": "boxed", "matcher": "math_acc"}
    evaluation = {"by": ["subject"]}
    prepared = prepare(
        config(data=whole, watched={"data": str(archive)}, reward=reward, evaluation=evaluation)
    )
    (problem,) = prepared.splits["test"]
    assert (problem.references, problem.labels) == (("100",), (("subject", "Algebra"),))
    assert prepared.quarantined == []


@pytest.fixture
def serve():
    """Serves one file and gives its address."""
    servers = []

    def start(path):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200 if path else 404)
                self.end_headers()
                self.wfile.write(path.read_bytes() if path else b"")

            def log_message(self, *_):
                pass

        servers.append(HTTPServer(("127.0.0.1", 0), Handler))
        Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}/MATH.tar"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def refused(path, by=()):
    with pytest.raises(UserError) as caught:
        read_math_archive(data(path), by)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_link_that_is_dead_is_said_with_what_to_do(serve, tmp_path):
    for said in (refused(serve(None)), refused("http://127.0.0.1:1/MATH.tar"), refused(tmp_path / "none")):
        assert "data.path: " in said
        assert "the public link is dead since January 2025: name a copy of yours in data.path" in said


def test_what_is_no_archive_is_refused(archive, serve):
    page = archive.parent / "page.html"
    page.write_text("<html>gone</html>")
    assert "page.html cannot be read" in refused(page)
    assert "cannot be read (" in refused(serve(page))
    assert "evaluation.by: MATH has no column topic" in refused(archive, ("topic",))
    write_problem(archive.parent, "train/algebra/11.json", ("Find $1$.", "Level 1", "Algebra", None))
    assert "train/algebra/11.json is no problem of MATH" in refused(archive)
    (archive / "train/algebra/11.json").write_text("{")
    assert "train/algebra/11.json is no problem of MATH" in refused(archive)
    (archive / "train/algebra/11.json").unlink()
    cut = packed(archive, "w:gz")
    cut.write_bytes(cut.read_bytes()[:200])
    assert "MATH.tar cannot be read" in refused(cut)
    (archive / "test").rename(archive / "dev")
    assert "no problem at MATH/test/<subject>/<number>.json, found 3 in all" in refused(archive)
