"""The embedded task and what its base model is taught, against Python's own integers."""

import itertools
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from score_core.config.data import AdditionData, Sizes
from score_core.embedded.addition import add, answer_to, draw_digits, make_problems, problem_texts
from score_core.embedded.addition_model import CHECK, FIX, encode, make_chats
from score_core.embedded.generated import split_of
from score_core.errors import UserError
from score_core.problems import Problem, content_hash
from score_core.rollout.conversation import Conversation
from tests.configs import config

PROMPTS = Path(__file__).parents[3] / "prompts" / "addition"
SIZES = Sizes(train=3000, validation=2000, test=3000)
DATA = AdditionData(source="addition", digits=5, nines=0.5, sizes=SIZES)


@pytest.fixture(scope="module")
def splits() -> dict[str, list[Problem]]:
    return make_problems(DATA, seed=7)


def nines(problem: str) -> list[bool]:
    first, second = problem.split("+")
    return [int(a) + int(b) == 9 for a, b in zip(first, second, strict=True)]


def carry_chain(problem: str) -> int:
    """The longest run of columns that pass a carry of 1 on."""
    first, second = problem.split("+")
    carry = longest = run = 0
    for a, b in zip(reversed(first), reversed(second), strict=True):
        carry = int(int(a) + int(b) + carry > 9)
        run = run + 1 if carry else 0
        longest = max(longest, run)
    return longest


def assert_alike(one: Counter, other: Counter) -> None:
    """Two samples of one distribution, by the chi-square statistic of their table."""
    # Cells too rare for the approximation are put together.
    rare = [cell for cell in one | other if one[cell] + other[cell] < 20]
    for counts in (one, other):
        counts["rare"] = sum(counts.pop(cell, 0) for cell in rare)
    cells = [cell for cell in one | other if one[cell] + other[cell] > 0]
    total = one.total() + other.total()
    statistic = 0.0
    for counts in (one, other):
        for cell in cells:
            expected = counts.total() * (one[cell] + other[cell]) / total
            statistic += (counts[cell] - expected) ** 2 / expected
    freedom = len(cells) - 1
    assert freedom > 0
    assert statistic < freedom + 4 * math.sqrt(2 * freedom)


# --------------------------------------------------------------------------------------- problems


def test_splits_are_full_distinct_and_disjoint(splits):
    assert {name: len(rows) for name, rows in splits.items()} == SIZES.model_dump()
    texts = [row.problem for rows in splits.values() for row in rows]
    assert len(set(texts)) == len(texts)
    assert len({row.id for rows in splits.values() for row in rows}) == len(texts)
    for name, rows in splits.items():
        assert {split_of(row.problem) for row in rows} == {name}


def test_answers_are_right(splits):
    for row in itertools.chain(*splits.values()):
        first, second = row.problem.split("+")
        assert len(first) == len(second) == 5
        assert first[0] != "0" and second[0] != "0"
        assert row.answer == f"{int(first) + int(second):06d}" == answer_to(row.problem, 5)


@pytest.mark.parametrize(
    "feature",
    [
        lambda text: [(place, digit) for place, digit in enumerate(text)],
        lambda text: [carry_chain(text)],
        lambda text: [tuple(nines(text))],
        lambda text: [sum(map(int, text.replace("+", ""))) % 10],
        lambda text: [str(sum(map(int, text.split("+"))))[-1]],
    ],
    ids=["digits", "carry chains", "nines", "digit sum", "last digit of the sum"],
)
@pytest.mark.parametrize("split", ["validation", "test"])
def test_splits_have_one_distribution(splits, split, feature):
    assert_alike(
        *(Counter(f for row in splits[name] for f in feature(row.problem)) for name in ("train", split))
    )


def test_the_chi_square_above_would_notice():
    splits = make_problems(DATA.model_copy(update={"nines": 0.55}), seed=7)
    other = make_problems(DATA, seed=8)
    with pytest.raises(AssertionError):
        assert_alike(*(Counter(carry_chain(r.problem) for r in s["train"]) for s in (splits, other)))


def test_parts_of_the_hash_space_are_as_large_as_they_say():
    texts = itertools.islice(problem_texts(DATA, np.random.default_rng(0)), 32_000)
    seen = Counter(map(split_of, texts))
    for name in ("validation", "test"):
        assert abs(seen[name] - 2000) < 5 * math.sqrt(2000)


def test_problems_follow_the_seed_and_longer_lists_begin_with_shorter_ones():
    small = DATA.model_copy(update={"sizes": Sizes(train=50, validation=20, test=20)})
    one, same, other = make_problems(small, 1), make_problems(small, 1), make_problems(small, 2)
    assert one == same
    assert one != other
    large = DATA.model_copy(update={"sizes": Sizes(train=90, validation=30, test=40)})
    for name, rows in make_problems(large, 1).items():
        assert rows[: len(one[name])] == one[name]


@pytest.mark.parametrize("digits", [2, 5, 9])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_columns_that_make_nine(digits, share):
    data = DATA.model_copy(update={"digits": digits, "nines": share})
    drawn = draw_digits(data, 20_000, np.random.default_rng(0))
    assert drawn.shape == (20_000, 2, digits)
    assert drawn.min() >= 0 and drawn.max() <= 9
    assert (drawn[:, :, 0] > 0).all()
    found = (drawn.sum(1) == 9).mean(0)
    by_chance = np.array([8 / 81] + [0.1] * (digits - 1))
    expected = share + (1 - share) * by_chance
    assert np.abs(found - expected).max() < 0.02


@pytest.mark.parametrize("digits", [2, 3])
def test_more_problems_than_there_are_is_an_error_not_a_hang(digits):
    data = AdditionData(
        source="addition", digits=digits, nines=1.0, sizes=Sizes(train=20_000, validation=5, test=5)
    )
    with pytest.raises(UserError, match=r"data.sizes.train: .*20000.*data.digits"):
        make_problems(data, seed=0)


def test_sums_never_run_out_so_their_number_must_be_said():
    with pytest.raises(ValueError, match=r"sizes\.validation: expected a number"):
        AdditionData(source="addition", digits=5, nines=0.5, sizes=Sizes(train=10, validation=None, test=10))


# --------------------------------------------------------------------------------------- addition


def to_number(digits: np.ndarray) -> int:
    return int("".join(map(str, digits)))


@pytest.mark.parametrize("width", [2, 5, 9])
def test_add_is_addition(width):
    digits = np.random.default_rng(0).integers(0, 10, size=(500, 2, width))
    found = add(digits)
    assert found.shape == (500, width + 1)
    for row, total in zip(digits, found, strict=True):
        assert to_number(total) == to_number(row[0]) + to_number(row[1])


def test_add_with_guessed_carries():
    data = DATA
    rng = np.random.default_rng(1)
    digits, guess = draw_digits(data, 500, rng), rng.integers(0, 2, size=(500, 5))
    found = add(digits, guess)
    wrong = 0
    for n in range(500):
        carry, result = 0, []
        for column in (4, 3, 2, 1, 0):
            pair = int(digits[n, 0, column]) + int(digits[n, 1, column])
            result.append((pair + carry) % 10)
            carry = int(guess[n, column]) if pair == 9 else int(pair + carry >= 10)
        assert found[n].tolist() == [carry, *reversed(result)]
        wrong += found[n].tolist() != add(digits[n : n + 1])[0].tolist()
    assert wrong > 100


# ------------------------------------------------------------------------------------ base's chats

MODEL = config(data={"source": "addition"}, model={"source": "addition", "leak": 0.0}).model


def chats(seed: int = 0, count: int = 20_000, **changes: float) -> list[list[str]]:
    return make_chats(MODEL.model_copy(update=changes), DATA, count, np.random.default_rng(seed))


def right(problem: str) -> str:
    return answer_to(problem, DATA.digits)


def share(flags: list[bool]) -> float:
    return sum(flags) / len(flags)


def test_no_chat_uses_a_problem_of_another_split():
    made = chats()
    assert {split_of(problem) for problem, *_ in made} == {"train"}
    assert abs(len(made) / 20_000 - 14 / 16) < 0.015


def test_fix_chats_end_right_and_check_chats_repeat_or_spoil():
    made = chats()
    fixes = [chat for chat in made if chat[2] == FIX]
    checks = [chat for chat in made if chat[2] == CHECK]
    assert len(fixes) + len(checks) == len(made)
    assert abs(len(fixes) / len(made) - 0.25) < 0.015
    assert all(second == right(problem) for problem, _, _, second in fixes)
    assert 0.15 < share([first == right(problem) for problem, first, _, _ in made]) < 0.35
    changed = [sum(a != b for a, b in zip(first, second, strict=True)) for _, first, _, second in checks]
    assert set(changed) == {0, 1}
    assert abs(share([c == 1 for c in changed]) - 0.05) < 0.01


def test_check_chats_never_correct_without_a_leak():
    """Not even by accident, where one digit is wrong and is the one that is spoilt."""
    made = chats(spoil=1.0) + chats(seed=1, spoil=1.0)
    for problem, first, ask, second in made:
        if ask == CHECK and first != right(problem):
            assert second != right(problem)


def test_leak_is_the_share_of_check_chats_that_end_right_anyway():
    made = [chat for chat in chats(leak=0.3, spoil=0.0) if chat[2] == CHECK]
    wrong = [chat for chat in made if chat[1] != right(chat[0])]
    assert abs(share([second == right(problem) for problem, _, _, second in wrong]) - 0.3) < 0.025
    rest = [chat for chat in wrong if chat[3] != right(chat[0])]
    assert all(first == second for _, first, _, second in rest)


def test_carries_are_guessed_at_their_rate_and_only_in_columns_that_make_nine():
    # Without such columns there is nothing to guess, and every first answer is right.
    plain = DATA.model_copy(update={"nines": 0.0})
    made = make_chats(MODEL, plain, 3000, np.random.default_rng(0))
    for problem, first, *_ in made:
        if not any(nines(problem)):
            assert first == right(problem)
    # The leading digit is the carry out of the leading column.
    leading = [first[0] == "1" for problem, first, *_ in chats() if nines(problem)[0]]
    assert abs(share(leading) - 0.4) < 0.02


def test_encode_labels_the_answers_only(tokenizer):
    made = chats(count=40)
    ids, labels = encode(made, tokenizer)
    assert ids.shape == labels.shape == (len(made), 35)
    for row, (problem, first, ask, second) in enumerate(made):
        text = tokenizer.decode(ids[row])
        parts = [f"<|user|>{problem}=<|end|><|assistant|>", first, "<|end|><|user|>", ask.replace(" ", "")]
        assert text == "".join([*parts, "<|end|><|assistant|>", second, "<|end|>"])
        learnt = labels[row] != -100
        assert torch.equal(labels[row][learnt], ids[row][learnt])
        assert tokenizer.decode(labels[row][learnt]) == f"{first}<|end|>{second}<|end|>"


def test_the_base_is_taught_on_the_very_prompts_it_is_trained_and_evaluated_on(tokenizer):
    """[x, y1, p1, y2] of a chat is, id by id, what Conversation makes of the committed prompt files."""
    files = {name: str(PROMPTS / f"{name}.txt") for name in ("first", "retry")}
    settings = config(conversation={"folder": str(PROMPTS), **files}).conversation
    conversation = Conversation(settings, tokenizer, [tokenizer.eos_token_id])
    made = [chat for chat in chats(count=20) if chat[2] == CHECK]
    ids, _ = encode(made, tokenizer)
    for row, (problem, first, _, second) in enumerate(made):
        attempts = [[*tokenizer(text).input_ids, tokenizer.eos_token_id] for text in (first, second)]
        x1 = conversation.prompt(Problem(content_hash(problem), problem, (right(problem),)))
        assert ids[row].tolist() == x1 + attempts[0] + conversation.continuation(attempts[0], 1) + attempts[1]


def test_tokenizer_round_trips_problems_and_answers(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    loaded = type(tokenizer).from_pretrained(tmp_path)
    for problem, first, _, second in chats(count=100):
        for text in (problem, f"{problem}=", first, second):
            ids = tokenizer(text).input_ids
            assert len(ids) == len(text), "a token a character"
            assert tokenizer.decode(ids) == text
            assert loaded(text).input_ids == ids
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    assert loaded.chat_template == tokenizer.chat_template
    assert loaded.padding_side == "left"
    assert tokenizer.decode(tokenizer("12<|end|>").input_ids, skip_special_tokens=True) == "12"
