"""The table of mutations fits the code: what it changes is there, and so are the tests that it names."""

from benchmarks.mutations import mutations
from tests.configs import ROOT


def test_every_mutation_applies_to_one_place_and_its_tests_exist():
    found = list(mutations())
    assert len({(one.file, one.old, one.new) for one in found}) == len(found) >= 40
    for mutation in found:
        compile(mutation.applied(), mutation.file, "exec")
        for test in mutation.tests:
            path, _, name = test.partition("::")
            assert (ROOT / path).exists(), test
            assert not name or f"def {name.partition('[')[0]}(" in (ROOT / path).read_text(), test
