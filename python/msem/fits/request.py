"""What was asked for when a model was fitted, so that it can be asked again with changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Generic, TypeVar

from msem.errors import ModelError
from msem.language.syntax import Block, ModelSyntax, format_syntax, parse
from msem.model.drafts import Fun
from msem.model.levels import LEVEL_HEADERS
from msem.settings import Settings

Result = TypeVar("Result")
LEVEL_HEADER = "level: 2\n  "
OF_BOOTSTRAP = ("bootstrap", "seed")


@dataclass(frozen=True, eq=False)
class Request(Generic[Result]):
    """A model, its data and the options of its fit.

    Attributes
    ----------
    fun : {"sem", "cfa", "growth"}
    model : str
    data : object
        As they were given, and not a copy; None once the request has been pickled.
    settings : Settings
    fit : callable
        Fits a model: function, text, data and settings.
    kept : bool
        Whether the data are there.
    """

    fun: Fun
    model: str
    data: Any
    settings: Settings
    fit: Callable[[Fun, str, Any, Settings], Result]
    kept: bool = True

    def __getstate__(self) -> dict[str, Any]:
        """Pickle without the data, which may be much more than the fit needs."""
        own = {one.name: getattr(self, one.name) for one in fields(self)}
        return own | {"data": None, "kept": self.kept and self.data is None}

    def changed(self, model: str | None, data: Any, add: str | None, options: dict[str, Any]) -> Result:
        """Fit again with changes; see `Fit.update`."""
        text = self.model if model is None else model
        if add is not None:
            text = extended(text, add)
        if data is None and not self.kept:
            raise ModelError("the fit was read from a pickle, which does not keep the data: give data=")
        values = {
            own.name: getattr(self.settings, own.name)
            for own in fields(Settings)
            if getattr(self.settings, own.name) != own.default
        }
        if "se" in options and options["se"] != "bootstrap":
            values = {name: value for name, value in values.items() if name not in OF_BOOTSTRAP}
        settings = Settings.read(values | options, self.fun)
        return self.fit(self.fun, text, self.data if data is None else data, settings)

    def with_data(self, data: Any) -> Request[Result]:
        """The same for other data."""
        return replace(self, data=data, kept=True)


def extended(model: str, add: str) -> str:
    """A model with further lines, put below those of the block whose header they have.

    Raises
    ------
    ModelError
        If the model has levels or groups and the lines do not say where they stand.
    """
    own, new = parse(model), parse(add)
    places = [_place(block) for block in own.blocks]
    if any(map(any, places)) and not all(any(_place(block)) for block in new.blocks):
        raise ModelError(
            "the model has levels or groups: say where the new lines stand, "
            f"add={LEVEL_HEADER + add.strip()!r}"
        )
    blocks = [*own.blocks, *(block for block in new.blocks if _place(block) not in places)]
    places = [_place(block) for block in blocks]
    moved = [replace(one, block=places.index(_place(new.blocks[one.block]))) for one in new.statements]
    both = (*own.constraints, *new.constraints)
    return format_syntax(ModelSyntax(tuple(blocks), (*own.statements, *moved), both, ""))


def _place(block: Block) -> tuple[str, str]:
    """Group and level of a block, "" where it has none."""
    level = str(block.level or "")
    number = LEVEL_HEADERS.get(level.lower())
    return block.group or block.block or "", str(number) if number else level
