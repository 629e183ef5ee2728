"""Labels from live cameras: the recogniser, and the stream that feeds it."""

from kd_edge.runtime.recognizer import Recognizer
from kd_edge.runtime.stream import stream
from kd_edge.runtime.watchdog import Watchdog

__all__ = ["Recognizer", "Watchdog", "stream"]
