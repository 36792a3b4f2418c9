"""From problems to ids: whole prompts, sampled ids untouched, and mistakes named."""

import json

import pytest

from score_core.errors import UserError
from score_core.problems import Problem
from score_core.rollout.conversation import ANSWER, Conversation
from tests.sampling import sample

RETRY = "There might be an error. Correct it {if} any, and write ANSWER: again."


def problem(text: str) -> Problem:
    return Problem(id="p1", problem=text, references=("7",))


@pytest.fixture
def speak(make_conversation, text_tokenizer):
    """Conversations of a text model; `speak(...)` takes what make_conversation takes."""

    def make(**settings):
        settings = {"first": "Solve: {problem} {boxed}", "retry": RETRY} | settings
        return make_conversation(with_tokenizer=text_tokenizer, **settings)

    return make


# --------------------------------------------------------------------------------- what is said


def test_prompt_is_the_template_around_the_problem(speak, text_tokenizer):
    ids = speak().prompt(problem("what is {x} + 1?"))
    assert text_tokenizer.decode(ids) == (
        "<|im_start|>user\nSolve: what is {x} + 1? {boxed}<|im_end|>\n<|im_start|>assistant\n"
    )


def test_system_and_few_shot_come_first(speak, text_tokenizer):
    shots = [{"problem": "one", "answer": "1"}, {"problem": "a line\u2028separator", "answer": "2"}]
    lines = "\n".join(json.dumps(shot, ensure_ascii=False) for shot in shots)
    conversation = speak(system="Be right.", few_shot=lines, first="{problem}")
    expected = "<|im_start|>system\nBe right.<|im_end|>\n"
    for shot in shots:
        expected += f"<|im_start|>user\n{shot['problem']}<|im_end|>\n"
        expected += f"<|im_start|>assistant\n{shot['answer']}<|im_end|>\n"
    expected += "<|im_start|>user\nthree<|im_end|>\n<|im_start|>assistant\n"
    assert text_tokenizer.decode(conversation.prompt(problem("three"))) == expected
    # The examples are no part of what is said between attempts.
    assert conversation.instruction == speak().instruction


def test_instruction_is_the_whole_retry_prompt(speak, text_tokenizer):
    conversation = speak()
    expected = f"<|im_end|>\n<|im_start|>user\n{RETRY}<|im_end|>\n<|im_start|>assistant\n"
    assert text_tokenizer.decode(conversation.instruction) == expected
    assert conversation.instruction[0] == text_tokenizer.eos_token_id


@pytest.mark.parametrize("retry", ["ANSWER", "ANSWER ANSWER", "is ANSWER right?"])
def test_the_retry_prompt_may_hold_any_word(speak, text_tokenizer, retry):
    text = text_tokenizer.decode(speak(retry=retry).instruction)
    assert text == f"<|im_end|>\n<|im_start|>user\n{retry}<|im_end|>\n<|im_start|>assistant\n"


def test_template_options_reach_every_opening_of_a_turn(speak, text_tokenizer):
    conversation = speak(template_options={"thinking": False})
    for ids in (conversation.prompt(problem("1")), conversation.instruction):
        assert text_tokenizer.decode(ids).endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")


def test_continuation_closes_an_attempt_once(speak):
    conversation = speak()
    end = conversation.instruction[0]
    assert conversation.continuation([40, 41, end], 1) == conversation.instruction[1:]
    assert conversation.continuation([40, 41], 1) == conversation.instruction
    assert conversation.continuation([], 1) == conversation.instruction


def test_an_attempt_that_stopped_at_another_end_token_is_closed_as_the_template_does(speak, text_tokenizer):
    other = text_tokenizer.pad_token_id
    conversation = speak(end_ids=[text_tokenizer.eos_token_id, other])
    assert conversation.end_ids == (text_tokenizer.eos_token_id, other)
    assert conversation.continuation([40, other], 1) == conversation.instruction


def test_dialogue_equals_the_template_where_text_round_trips(speak, text_tokenizer):
    conversation = speak(first="{problem}")
    answer = [*text_tokenizer("the answer is 7").input_ids, text_tokenizer.eos_token_id]
    found = conversation.prompt(problem("x")) + answer + conversation.continuation(answer, 1)
    messages = [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": "the answer is 7"},
        {"role": "user", "content": RETRY},
    ]
    text = text_tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert found == text_tokenizer(text, add_special_tokens=False).input_ids


def test_sampled_ids_are_trained_on_as_they_are(speak, text_tokenizer, make_model):
    """Ids that a decode and encode would change, and reasoning that the template would strip."""
    tokens = text_tokenizer.convert_tokens_to_ids
    split = [tokens("a"), tokens("b"), tokens("a"), tokens("b")]
    assert text_tokenizer(text_tokenizer.decode(split)).input_ids != split
    end = text_tokenizer.eos_token_id
    reasoning = text_tokenizer("<think>no</think>\n\n7").input_ids
    rendered = text_tokenizer.apply_chat_template(
        [{"role": "assistant", "content": "<think>no</think>\n\n7"}], tokenize=False
    )
    assert "no" not in rendered, "this template strips"

    conversation = speak(max_new_tokens=5)
    x1 = conversation.prompt(problem("x"))
    given = [[*split, end], [*reasoning, end], split]
    model = make_model(vocab_size=len(text_tokenizer))
    trajectories, _ = sample(model, conversation, [x1] * 3, 2, given=given)
    for row, y1 in enumerate(given):
        (first, y2), segments = trajectories.attempts[row], trajectories.segments[row]
        assert first == y1
        p1 = conversation.instruction[1:] if y1[-1] == end else conversation.instruction
        assert segments == ((x1, 0), (y1, 1), (p1, 0), (y2, 2))
        real = trajectories.attention_mask_NL[row].bool()
        assert trajectories.input_ids_NL[row][real].tolist() == [*x1, *y1, *p1, *y2]


# -------------------------------------------------------------------------------------- mistakes


def test_a_problem_that_is_too_long_is_refused_never_cut(speak):
    conversation = speak(max_prompt_tokens=60)
    assert len(conversation.prompt(problem("short"))) <= 60
    conversation.check_prompts([problem("short")] * 3)
    longest = problem("long " * 61)
    size = len(conversation.prompt(longest))
    with pytest.raises(UserError) as caught:
        conversation.check_prompts([problem("short"), problem("long " * 60), longest, problem("long " * 59)])
    assert str(caught.value) == (
        f"problem p1 ({longest.problem[:60]!r}): its prompt has {size} tokens, the most of 3 that are too "
        "long; expected at most conversation.max_prompt_tokens = 60; raise that or remove the problem."
    )
    speak(max_prompt_tokens=size).check_prompts([longest])
    with pytest.raises(UserError, match=f"its prompt has {size} tokens; expected at most"):
        speak(max_prompt_tokens=size - 1).check_prompts([longest])


def test_dialogues_that_could_outgrow_the_context_are_refused(speak):
    conversation = speak(max_prompt_tokens=100, max_new_tokens=50)
    longest = 100 + 2 * 50 + len(conversation.instruction)
    assert conversation.longest(2) == longest
    assert conversation.longest(4) == 100 + 4 * 50 + 3 * len(conversation.instruction)
    conversation.check_fits(2, longest)
    conversation.check_fits(2, None)
    with pytest.raises(UserError, match=rf"2 attempts can reach {longest} tokens .* holds {longest - 1};"):
        conversation.check_fits(2, longest - 1)
    with pytest.raises(UserError, match="3 attempts can reach"):
        conversation.check_fits(3, longest)
    own_limit = speak(max_prompt_tokens=100, max_new_tokens=50, max_context_tokens=150)
    with pytest.raises(UserError, match="holds 150"):
        own_limit.check_fits(2, 100_000)


def test_first_prompt_without_a_place_for_the_problem(speak):
    with pytest.raises(UserError, match=r"first: expected \{problem\}"):
        speak(first="Solve it: {question}")


def test_missing_prompt_file(make_conversation, tmp_path):
    good = make_conversation()
    settings = good.settings.model_copy(update={"retry": str(tmp_path / "nowhere")})
    with pytest.raises(UserError, match="nowhere: not found; write this prompt file"):
        Conversation(settings, good.tokenizer, good.end_ids)


@pytest.mark.parametrize(
    "line", ["not json", '{"problem": "1"}', '["1", "2"]', '"text"', '{"problem": 1, "answer": 2}']
)
def test_few_shot_mistakes_name_file_and_line(speak, line):
    with pytest.raises(UserError, match=r"few_shot: line 2: .*expected"):
        speak(few_shot='{"problem": "1", "answer": "1"}\n' + line)


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:",
        "{% for m in messages %}{{ m.content }}\n<|im_end|>{% endfor %}",
    ],
    ids=["no end token", "end token behind a line break"],
)
def test_a_template_that_does_not_close_its_turns_is_refused(speak, text_tokenizer, template):
    text_tokenizer.chat_template = template
    with pytest.raises(UserError, match="does not close an assistant's turn with an end token"):
        speak()


@pytest.mark.parametrize(
    ("says", "lost"),
    [
        ("m.content|upper", RETRY),
        ("m.content|replace(' ', '')", RETRY),
        ("m.content if m.role == 'assistant'", RETRY),
        ("m.content if m.role == 'user'", ANSWER),
        ("m.content if m.role == 'user' else m.content|lower", ANSWER),
    ],
)
def test_a_template_that_rewrites_what_is_said_is_refused_as_such(speak, text_tokenizer, says, lost):
    text_tokenizer.chat_template = "{% for m in messages %}{{ " + says + " }}<|im_end|>{% endfor %}"
    with pytest.raises(UserError, match="leaves out or rewrites what is said") as caught:
        speak()
    assert repr(lost[:60]) in str(caught.value)


def test_end_tokens_that_disagree_with_the_template_are_refused(speak, text_tokenizer):
    with pytest.raises(UserError, match="does not close an assistant's turn with an end token"):
        speak(end_ids=[text_tokenizer.pad_token_id])


CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (
            "{% if messages[0].role == 'system' %}"
            "{{ raise_exception('System role\nnot supported') }}{% endif %}",
            "(System role not supported); set conversation.system: null",
        ),
        ("{{ nonesuch.part }}", "('nonesuch' is undefined); set conversation.system: null"),
        ("{{ 1 + 'a' }}", "(unsupported operand"),
        ("{{ 1 / 0 }}", "(division by zero)"),
        ("{% for %}", "refuses the dialogue"),
    ],
)
def test_a_template_that_raises_is_named_with_what_it_said(speak, text_tokenizer, template, words):
    text_tokenizer.chat_template, text_tokenizer.name_or_path = template + CHATML, "models/base"
    with pytest.raises(UserError) as caught:
        speak(system="Be right.")
    message = str(caught.value)
    assert message.startswith("the chat template of models/base refuses the dialogue (")
    assert words in message and "\n" not in message


def test_a_template_without_system_turns_serves_dialogues_without(speak, text_tokenizer):
    refusal = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    text_tokenizer.chat_template = refusal + CHATML
    assert text_tokenizer.decode(speak().prompt(problem("1"))).startswith("<|im_start|>user")
    with pytest.raises(UserError, match="no roles at all") as caught:
        text_tokenizer.chat_template = "{{ raise_exception('no roles at all') }}"
        speak()
    assert "conversation.system" not in str(caught.value)


# As in Llama 3.2's, whose system turn says it always.
DATED = (
    "{%- if not date_string is defined %}{%- if strftime_now is defined %}"
    "{%- set date_string = strftime_now('%d %b %Y') %}{%- else %}{%- set date_string = '26 Jul 2024' %}"
    "{%- endif %}{%- endif %}{{- 'Today is ' + date_string + '. ' }}"
)


def test_a_template_that_prints_todays_date_prints_one_day_for_ever(speak, text_tokenizer):
    text_tokenizer.chat_template = DATED + CHATML
    today = text_tokenizer.apply_chat_template([{"role": "user", "content": ""}], tokenize=False)
    assert "2024" not in today, "the template itself prints what the clock says"
    conversation = speak()
    said = text_tokenizer.decode(conversation.prompt(problem("1")))
    assert said.startswith("Today is 26 Jul 2024. <|im_start|>user")
    assert conversation.dialogue.startswith("Today is 26 Jul 2024. ")
    other = speak(template_options={"date_string": "1 Jan 2000"})
    assert other.dialogue.startswith("Today is 1 Jan 2000. ")
    text_tokenizer.chat_template = "{{ strftime_now('%Y-%m-%d, %A') }} " + CHATML
    assert speak().dialogue.startswith("2024-07-26, Friday ")


@pytest.mark.parametrize(
    "start", ["", "\n", "\n\n", "  ", "  {% if true %}\n{% endif %}", "{{- 'a' }}", "\t\n {#- c #}"]
)
def test_pinning_the_date_changes_nothing_else(speak, text_tokenizer, start):
    text_tokenizer.chat_template = start + CHATML
    conversation = speak(first="{problem}", retry="again")
    messages = [{"role": "user", "content": "x"}]
    plain = text_tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert text_tokenizer.decode(conversation.prompt(problem("x"))) == plain


@pytest.mark.parametrize("name", ["tokenize", "add_generation_prompt", "chat_template", "return_dict"])
def test_arguments_of_the_library_are_no_options_of_a_template(make_conversation, name):
    with pytest.raises(UserError, match=f"template_options.{name}: is no option of the chat template"):
        make_conversation(template_options={name: True})


@pytest.mark.parametrize("retry", ["", " \n"])
def test_an_empty_retry_instruction_is_refused(make_conversation, retry):
    with pytest.raises(UserError, match="retry: is empty; expected the instruction before a later turn"):
        make_conversation(retry=retry)


def test_prompts_are_utf_8(make_conversation, tmp_path):
    good = make_conversation()
    (tmp_path / "retry").write_bytes("pr\u00fcfe".encode("latin-1"))
    with pytest.raises(UserError, match="retry: cannot be read as UTF-8 text"):
        Conversation(good.settings, good.tokenizer, good.end_ids)
