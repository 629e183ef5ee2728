"""``python -m kd_edge.runtime.ros``: the node, if colcon has not built ``ros2 run kd_edge action_recognition``."""

import sys

from kd_edge.runtime.ros.program import main

if __name__ == "__main__":
    sys.exit(main())
