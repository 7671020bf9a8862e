"""Reading arrivals: opened safely or fetched, checked against what was announced, and parsed as a stream.

Everything that makes a file unusable is an `Unusable` with a reason that is counted; faults of the machine and of the
store that it lies in are errors of the stage.
"""

from stages.training.reading.documents import SEPARATOR, Document, documents
from stages.training.reading.opening import open_arrival
from stages.training.reading.source import Source
from stages.training.reading.unusable import Reason, Unusable

__all__ = ["SEPARATOR", "Document", "Reason", "Source", "Unusable", "documents", "open_arrival"]
