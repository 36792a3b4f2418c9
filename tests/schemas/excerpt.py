"""The parts of Kubernetes' and SkyPilot's own schemas that the files in launch/ are held against.

    python -m tests.schemas.excerpt kubernetes FOLDER     # of kubernetes-validate's wheel, unpacked
    python -m tests.schemas.excerpt skypilot              # in an environment with skypilot

Both packages are large (70 MB in 17,000 files; a hundred dependencies), so what they say of our kinds of
object is committed, without its descriptions: Kubernetes 1.37, strict, of kubernetes-validate 1.37.0, and
SkyPilot 0.14.1.
"""

import json
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
STRICT = "kubernetes_validate/kubernetes-json-schema/v1.37.0-local-strict"
KINDS = {
    "Deployment": "deployment-apps-v1",
    "Job": "job-batch-v1",
    "NetworkPolicy": "networkpolicy-networking-v1",
    "PersistentVolumeClaim": "persistentvolumeclaim-v1",
    "Service": "service-v1",
}


def kubernetes(folder: Path) -> dict[str, Any]:
    """The kinds by name, and all that they refer to."""
    known = json.loads((folder / STRICT / "_definitions.json").read_text())["$defs"]
    kinds = {
        kind: plain(json.loads((folder / STRICT / f"{name}.json").read_text()))
        for kind, name in KINDS.items()
    }
    found: dict[str, Any] = {}
    waiting = list(references(kinds))
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = plain(known[name])
            waiting += references(found[name])
    for kind in kinds.values():
        del kind["$id"]
    return {"$defs": kinds | dict(sorted(found.items()))}


def references(schema: Any) -> Iterator[str]:
    """The names of the definitions that a schema refers to."""
    if isinstance(schema, dict):
        if isinstance(schema.get("$ref"), str):
            yield schema["$ref"].removeprefix("#/$defs/")
        schema = list(schema.values())
    for inner in schema if isinstance(schema, list) else ():
        yield from references(inner)


def plain(schema: Any, of_names: bool = False) -> Any:
    """Without descriptions and Kubernetes' own keywords, and referring to the file that it stands in.

    Args:
        of_names: whether the keys of `schema` are properties' names.
    """
    if isinstance(schema, list):
        return [plain(inner) for inner in schema]
    if isinstance(schema, str):
        return schema.replace("/api/_definitions.json#", "#")
    if not isinstance(schema, dict):
        return schema
    return {
        key: plain(inner, key == "properties" and not of_names)
        for key, inner in schema.items()
        if of_names or not (key in ("description", "default") or key.startswith("x-kubernetes"))
    }


def skypilot() -> dict[str, Any]:
    """A task, and its resources."""
    schemas = import_module("sky.utils.schemas")  # not one of our requirements
    task = schemas.get_task_schema()
    task["properties"]["resources"] = schemas.get_resources_schema()
    return task


def write(name: str, schema: dict[str, Any]) -> None:
    """Writes it with a line a definition or property, so that differences can be read."""
    key = "$defs" if "$defs" in schema else "properties"
    lines = [f"{json.dumps(name)}: {json.dumps(inner)}" for name, inner in schema[key].items()]
    rest = {name: inner for name, inner in schema.items() if name != key}
    body = ",\n".join([*(f"{json.dumps(name)}: {json.dumps(inner)}" for name, inner in rest.items())])
    text = "{" + (body + ",\n" if body else "") + f"{json.dumps(key)}: {{\n" + ",\n".join(lines) + "\n}}\n"
    (HERE / f"{name}.json").write_text(text)


if __name__ == "__main__":
    write(sys.argv[1], kubernetes(Path(sys.argv[2])) if sys.argv[1] == "kubernetes" else skypilot())
