"""Spans of time as they are configured."""

from datetime import timedelta
from typing import Annotated

from pydantic import Field

Period = Annotated[timedelta, Field(gt=timedelta(0), le=timedelta(days=36_525))]
"""A span of time of at most a century: whatever instant it is added to, the sum still is one."""
