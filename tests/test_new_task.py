"""The task that docs/extending.md brings along, written down and prepared as it stands there."""

import argparse
import json
import re
import shutil

from score_core.algorithms import SETTINGS
from score_core.config.parsing import parse_config
from score_core.files import parse_yaml
from score_core.problems import read_problems
from score_core.rewards.grader import Grader
from score_core.rewards.group import Ungraded
from score_core.rollout.conversation import load_conversation
from tasks import download_data, prepare_base_model
from tasks.commands.plan import plan
from tasks.commands.profiles import compose
from tests.configs import ROOT, runtime

PAGE = (ROOT / "docs" / "extending.md").read_text()
FILES = dict(re.findall(r"^```\w+ (\S+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))


def test_a_task_takes_under_30_lines_and_works(tmp_path, monkeypatch):
    assert len(FILES) == 3 and sum(len(text.splitlines()) for text in FILES.values()) < 30
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    monkeypatch.chdir(tmp_path)
    for path, text in FILES.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    (tmp_path / "data/capitals").mkdir(parents=True)
    (row,) = re.findall(r'`(\{"question".*?\})`', PAGE)
    example = json.loads(row)
    rows = [example | {"question": example["question"].replace("Peru", f"country {n}")} for n in range(60)]
    for split, part in (("train", rows[:50]), ("test", [example, *rows[50:]])):
        (tmp_path / f"data/capitals/{split}.jsonl").write_text("\n".join(map(json.dumps, part)))
    config = parse_config(parse_yaml(compose(["profile=capitals", "smoke=yes"])), SETTINGS, "capitals")
    prepared, base = tmp_path / "prepared", tmp_path / "base"
    download_data.run(argparse.Namespace(output=prepared), config, runtime(threads=1))
    prepare_base_model.run(argparse.Namespace(output=base), config, runtime(threads=1))
    test = read_problems(prepared, "test")
    load_conversation(base, config.conversation, 2).check_prompts(test)
    texts = ["It is on the coast.\nFinal Answer: Lima.", "Final Answer: Lima or Quito", "Lima"]
    group = Ungraded(test[0], 1, texts, [[1]] * 3, [False] * 3)
    assert plan("capitals", []).work[-1].dialogues == len(test) == 11
    graded = Grader(config.reward).grade([group])[0]
    assert [(one.correct, round(one.reward, 3)) for one in graded] == [
        (True, 1.2),
        (False, 0.1),
        (False, 0.0),
    ]
