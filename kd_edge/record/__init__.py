"""Record clips from one or several cameras into a folder that ``kd-edge train`` reads."""

from __future__ import annotations

from kd_edge.record.events import Began, Countdown, Event, Kept, Note, Status, Summary
from kd_edge.record.folder import Folder
from kd_edge.record.plan import Plan, make_plan
from kd_edge.record.session import Session

__all__ = ["Began", "Countdown", "Event", "Folder", "Kept", "Note", "Plan", "Session", "Status", "Summary", "make_plan"]
