#!/usr/bin/env bash
# The tests of ROS 2 with a real ROS 2 from wheels, in an environment of their own, on loopback and a free domain, with
# the packages of launch/ros2 as colcon builds them.
#   tools/check_ros.sh FOLDER [arguments of pytest]    makes environment and packages there the first time (about 700 MB, 3 min)
# No test may skip for want of ROS. Python 3.10 to 3.13 on x86-64 Linux; PYTHON names another one than python3.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$(realpath -m "${1:?which folder is the environment to be in?}")
shift
python="$folder/environment/bin/python"
wheels=(rclpy rmw-fastrtps-cpp sensor-msgs std-msgs diagnostic-msgs lifecycle-msgs rcl-interfaces std-srvs)

if [ ! -f "$folder/variables" ]; then
    mkdir -p "$folder"
    [ -x "$python" ] || "${PYTHON:-python3}" -m venv "$folder/environment"
    "$python" -m pip install --quiet --disable-pip-version-check "${wheels[@]/#/ros-kilted-}" -e '.[cpu,mcap,replay]' \
        onnx psutil pytest pytest-timeout hypothesis catkin-pkg pyyaml
    tools/build_ros_packages.py "$folder" --environment "$folder/environment" > "$folder/build.log" 2>&1 ||
        { cat "$folder/build.log"; exit 1; }
    grep '^export ' "$folder/build.log" > "$folder/variables"
fi
source "$folder/variables"

domain=$("$python" - <<'P'
import random, socket
for domain in random.sample(range(1, 102), 40):  # above, ports are those that the system gives to anybody
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as port:
        try:
            port.bind(("", 7400 + 250 * domain))  # where participants of a domain find each other
        except OSError:
            continue
    print(domain)
    break
P
)
export KD_EDGE_REQUIRE_ROS=1 ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST ROS_DOMAIN_ID="$domain" OMP_NUM_THREADS=1
export RMW_IMPLEMENTATION=rmw_fastrtps_cpp ROS_LOG_DIR="$folder/log"
"$python" -m pytest tests/runtime/ros tests/launch/test_ros_messages.py tests/launch/test_ros_packages.py "$@"
