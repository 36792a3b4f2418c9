"""How numbers and settings read on the page and on the card."""

from collections.abc import Callable

from score_core.config.code_data import CodeData
from score_core.config.data import AdditionData, ArchiveData, ArithmeticData, GymData, HubData, LocalData
from score_core.config.model import AdditionModel, HubModel, LocalModel, TinyModel
from score_core.config.schema import Config
from score_core.report.inputs import Inputs

MINUS = "\u2212"
NONE = "\u2013"  # a dash, where there is no value

Show = Callable[[float], str]


def number(value: float, form: str = ".3f") -> str:
    """A number with a typographic minus; zero has no sign."""
    text = format(value, form)
    return (text.lstrip("+-") if float(text) == 0 else text).replace("-", MINUS)


def percent(share: float) -> str:
    """0.9985 -> `99.9`; the unit stands in the heading."""
    return number(100 * share, ".1f")


def points(difference: float) -> str:
    """A difference of shares in percentage points, always with its sign: `+14.9`, `−0.4`, `0.0`."""
    return number(100 * difference, "+.1f")


def interval(bounds: tuple[float, float], show: Show = percent) -> str:
    """`[84.1, 86.9]`, each bound shown by `show`."""
    return f"[{show(bounds[0])}, {show(bounds[1])}]"


def is_score(inputs: Inputs, config: Config) -> bool:
    """Whether what is SCoRe's own was part of the training: Stage I, or a bonus for progress."""
    stages = [config.stage(trained.name).model_dump() for trained in inputs.training]
    return any(stage["algorithm"] == "score_stage1" or stage.get("alpha") for stage in stages)


def model_name(config: Config) -> str:
    """The model that training starts from, named for a reader."""
    match config.used_model:
        case AdditionModel() as model:
            return f"embedded Qwen2, {model.layers} layers of {model.hidden_size}, taught on sums"
        case HubModel() as model:
            return f"{model.path} ({model.revision})"
        case LocalModel() as model:
            return f"local model {model.path}"
        case TinyModel() as model:
            instead = f", in place of {config.model.path}" if isinstance(config.model, HubModel) else ""
            return f"tiny {model.family} with random weights{instead}"


def data_name(config: Config) -> str:
    """The problems, named for a reader."""
    match config.used_data:
        case AdditionData() as data:
            return f"addition of two {data.digits}-digit numbers"
        case ArithmeticData() as data:
            return f"{data.operation} of {data.operands} {data.digits}-digit numbers"
        case GymData() as data:
            return f"{data.dataset} of reasoning_gym"
        case ArchiveData() as data:
            instead = (
                f", in place of {config.data.path}"
                if config.smoke and isinstance(config.data, ArchiveData)
                else ""
            )
            return f"the MATH archive {data.path}{instead}"
        case CodeData() as data:
            instead = ", fixtures in place of both" if config.smoke else ""
            return f"{data.test.path} (trained on {data.train.path}){instead}"
        case HubData() as data:
            tested = f", tested on {data.test_set.path}" if data.test_set is not None else ""
            return f"{data.path}{f' / {data.name}' if data.name else ''} ({data.revision}){tested}"
        case LocalData() as data:
            instead = f", in place of {config.data.path}" if isinstance(config.data, HubData) else ""
            return f"local data {data.path}{instead}"
