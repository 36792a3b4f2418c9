"""What models, stages and changes of an answer are called where people read of them, keyed by name.

A name that is not listed is its own label: a pipeline with other models or stages needs no entry here.
Everything that shows results reads it, so it imports nothing.
"""

MODELS = {"base": "base model", "stage1": "after Stage I", "final": "after Stage II"}
SHORT = {"base": "Base", "stage1": "Stage I", "final": "Final"}  # the same models, above a column
STAGES = {"stage1": "Stage I", "stage2": "Stage II"}

# By the key in metrics/*.json.
TRANSITIONS = {"delta_i_to_c": "wrong → right", "delta_c_to_i": "right → wrong"}
# All that can become of an answer: (right before, right after).
OUTCOMES = {
    (True, True): "right → right",
    (False, True): TRANSITIONS["delta_i_to_c"],
    (True, False): TRANSITIONS["delta_c_to_i"],
    (False, False): "wrong → wrong",
}


def model_label(name: str) -> str:
    """An evaluated model in a line of its own: `after Stage I`."""
    return MODELS.get(name, name)


def short_label(name: str) -> str:
    """An evaluated model where there is little room: `Stage I`."""
    return SHORT.get(name, name)


def stage_label(name: str) -> str:
    """A stage of training: `Stage I`."""
    return STAGES.get(name, name)
