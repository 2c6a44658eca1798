"""The manifest's ``[config]``, key by key. What does not fit is a `BadConfig` that names the key."""

from __future__ import annotations

from importlib import import_module

from rollout_plugin._answers import line
from rollout_plugin._plugin import BadConfig

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class Config:
    """Keys are taken one by one; at the `end` none may be left."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._left = dict(config)

    def text(self, key: str, default: str | None = None) -> str:
        value: str = self._take(key, str, "text", default)
        return value

    def flag(self, key: str, default: bool) -> bool:
        value: bool = self._take(key, bool, "true or false", default)
        return value

    def table(self, key: str) -> dict[str, Any]:
        value: dict[str, Any] = self._take(key, dict, "a table", {})
        return value

    def positive(self, key: str) -> int | None:
        """A number from 1; None if it is not given."""
        if key not in self._left:
            return None
        number: int = self._take(key, int, "a number", None)
        if number < 1:
            raise BadConfig(f"{key} = {number}: it is at least 1")
        return number

    def choice(self, key: str, *choices: str) -> str:
        """One of the choices; the first if it is not given."""
        word = self.text(key, choices[0])
        if word not in choices:
            raise BadConfig(f"{key} = {word!r}: it is one of {', '.join(choices)}")
        return word

    def end(self) -> None:
        """Refuses what nobody has asked for."""
        if self._left:
            raise BadConfig(f"unknown in [config]: {', '.join(self._left)}")

    def _take(self, key: str, kind: type, wanted: str, default: Any) -> Any:
        value = self._left.pop(key, default)
        if value is None:
            raise BadConfig(f"{key} is missing in [config]: {wanted}")
        if type(value) is not kind:
            raise BadConfig(f"{key} = {value!r}: {wanted} is needed")
        return value


def named(key: str, text: str) -> Callable[..., Any]:
    """What ``module:function`` names."""
    module, _, path = text.partition(":")
    if not module or not is_path(path):
        raise BadConfig(f"{key} = {text!r}: it has the form module:function")
    try:
        found: Any = import_module(module)
    except Exception as error:
        raise BadConfig(f"{key} = {text!r}: {line(error)}") from error
    for name in path.split("."):
        if not hasattr(found, name):
            raise BadConfig(f"{key} = {text!r}: there is no {name!r} in {module}")
        found = getattr(found, name)
    if not callable(found):
        raise BadConfig(f"{key} = {text!r}: it can't be called")
    function: Callable[..., Any] = found
    return function


def is_path(text: str) -> bool:
    """Whether it names something in a module."""
    return all(part.isidentifier() for part in text.split("."))


def made(key: str, make: Callable[..., Any], kwargs: dict[str, Any]) -> Any:
    """What a factory of the user's makes."""
    try:
        return make(**kwargs)
    except Exception as error:
        raise BadConfig(f"{key} does not give one: {line(error)}") from error
