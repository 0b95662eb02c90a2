"""The bodies of requests to the server, and how large they may be."""

from __future__ import annotations

from typing import Annotated, Any

from recbole_xling.errors import MissingExtraError

try:
    from pydantic import BaseModel, ConfigDict, Field, model_validator
except ImportError as error:
    raise MissingExtraError(error.name or "pydantic", "serve") from error

Id = Annotated[str, Field(min_length=1, max_length=1000)]
_Ids = Annotated[list[Id], Field(max_length=10_000)]
Length = Annotated[int, Field(ge=1, le=1000)]
_History = Annotated[list[Id], Field(max_length=1000)]


class Body(BaseModel):
    """What all requests have in common: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid")


class Wanted(Body):
    """What is to be recommended, and to whom."""

    users: Annotated[list[Id], Field(max_length=256)] | None = None
    histories: Annotated[list[_History], Field(max_length=256)] | None = None
    reader: Id | None = None
    k: Length = 10
    exclude_seen: bool = True
    languages: _Ids | None = None
    items: _Ids | None = None
    block: _Ids = []
    where: Annotated[dict[str, _Ids], Field(max_length=100)] = {}

    @model_validator(mode="after")
    def _somebody(self) -> Wanted:
        if not self.users and not self.histories:
            raise ValueError("give users, histories, or one user for each history")
        return self


class Alike(Body):
    """An item, and what is to be like it."""

    item: Id
    k: Length = 10
    language: Id | None = None


class Asked(Body):
    """An item, and by whose history it is to be explained."""

    item: Id
    user: Id | None = None
    history: _History | None = None
    reader: Id | None = None
    language: Id = "en"
    words: bool = False

    @model_validator(mode="after")
    def _somebody(self) -> Asked:
        if self.user is None and self.history is None:
            raise ValueError("give a user or a history")
        return self


class Sought(Body):
    """Words of a title."""

    text: Annotated[str, Field(min_length=1, max_length=200)]
    k: Annotated[int, Field(ge=1, le=100)] = 10
    reader: Id | None = None


class Change(Body):
    """Items to add, to withdraw, and to show again."""

    add: Annotated[list[dict[str, Any]], Field(max_length=256)] = []
    replace: bool = False
    withdraw: _Ids = []
    restore: _Ids = []
