"""An attribute that is found when it is first asked for, for objects of which there are many."""

from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload

Value = TypeVar("Value")


class lazy(Generic[Value]):  # noqa: N801  # used as a decorator, as functools.cached_property is
    """``functools.cached_property`` without the lock that Python 3.11's takes, which costs as much as most values."""

    def __init__(self, find: Callable[[Any], Value]) -> None:
        self._find = find
        self.__doc__ = find.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, one: None, owner: type) -> "lazy[Value]": ...
    @overload
    def __get__(self, one: object, owner: type) -> Value: ...
    def __get__(self, one: object, owner: type) -> Any:
        if one is None:
            return self
        value = vars(one)[self._name] = self._find(one)
        return value


def tell(one: object, **known: Any) -> None:
    """Give lazy attributes that need not be found."""
    vars(one).update(known)
