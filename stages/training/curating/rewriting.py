"""A user's callable that gives kept documents another text, or leaves them out."""

import importlib
from collections.abc import Callable
from typing import cast

from daemon.core.errors import StageError
from stages.training.curating.texts import Content

SHOWN = 160
Rewrite = Callable[[Content], Content | None]


class Rewriting:
    """Calls it for one document after the other, and checks what comes back."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._call = _load(name)

    def __call__(self, content: Content, *, arrival: int, number: int) -> Content | None:
        """Return what becomes of a document; raises StageError (user_error), which names it, where that is nothing."""
        try:
            found = self._call(content)
        except (MemoryError, StageError):
            raise
        except Exception as error:
            message = f"raised {type(error).__name__}: {error}"
            raise self._error(message, content, arrival, number) from error
        if found is None or (isinstance(found, type(content)) and found):
            return found
        wanted = "text" if isinstance(content, str) else "an example (a dict)"
        returned = f"an empty {type(found).__name__}" if isinstance(found, type(content)) else type(found).__name__
        raise self._error(f"returned {returned}, and not {wanted} or None", content, arrival, number)

    def unusable(self, error: Exception, content: Content, *, arrival: int, number: int) -> StageError:
        """Return the error of an answer that cannot be stored."""
        return self._error(f"returned what cannot be stored ({error})", content, arrival, number)

    def _error(self, what: str, content: Content, arrival: int, number: int) -> StageError:
        beginning = repr(content)[:SHOWN]
        message = (
            f"The callable {self.name!r} {what}, for document {number} of arrival {arrival}, which begins "
            f"{beginning}. Mend it, or let it return None to leave the document out."
        )
        return StageError("user_error", message)


def _load(name: str) -> Rewrite:
    module, _, function = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), function)
    except Exception as error:
        message = (
            f"The callable {name!r} of `rewrite` cannot be imported ({type(error).__name__}: {error}): it is named "
            "'package.module:function'; install its package beside rewarm, or put its folder on PYTHONPATH."
        )
        raise StageError("user_error", message) from error
    if not callable(found):
        message = f"{name!r} of `rewrite` is a {type(found).__name__}, not a callable: name a function."
        raise StageError("user_error", message)
    return cast("Rewrite", found)
