"""Play a recorded bag through the action recognition node: ros2 launch kd_edge bag.launch.py bag:=DIR topics:=/image.

Accepts all arguments of kd_edge.launch.py, too.
"""

from __future__ import annotations

from launch import LaunchContext, LaunchDescription
from launch.action import Action
from launch.actions import (
    DeclareLaunchArgument,
    ExecuteProcess,
    IncludeLaunchDescription,
    OpaqueFunction,
    RegisterEventHandler,
    Shutdown,
)
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.event_handlers import OnStateTransition
from launch_ros.substitutions import FindPackageShare

CLOCK_HZ = "200"
"""Rate of /clock; rosbag2's default of 40 per second would make a frame look 25 ms too young."""


def generate_launch_description() -> LaunchDescription:
    """Start the node on simulated time, and the bag once the node is active."""
    launch_file = PathJoinSubstitution([FindPackageShare("kd_edge"), "launch", "kd_edge.launch.py"])
    fixed = {"driver": "none", "use_sim_time": "true", "lifecycle": "launch"}
    return LaunchDescription(
        [
            DeclareLaunchArgument("bag", description="Folder or file written by ros2 bag record."),
            DeclareLaunchArgument("rate", default_value="1.0", description="How fast it is played."),
            DeclareLaunchArgument(
                "loop", default_value="false", choices=["true", "false"], description="Begin anew at its end."
            ),
            OpaqueFunction(function=play_once_active),
            IncludeLaunchDescription(PythonLaunchDescriptionSource(launch_file), launch_arguments=fixed.items()),
        ]
    )


def play_once_active(context: LaunchContext) -> list[Action]:
    """Play the bag once the node is active, and shut down at its end."""
    bag, rate, loop = (LaunchConfiguration(name).perform(context) for name in ("bag", "rate", "loop"))
    command = ["ros2", "bag", "play", bag, "--rate", rate, "--clock", CLOCK_HZ, "--disable-keyboard-controls"]
    play = ExecuteProcess(
        cmd=[*command, "--loop"] if loop == "true" else command,
        output="screen",
        on_exit=[Shutdown(reason="the bag is over")],
    )
    return [RegisterEventHandler(OnStateTransition(goal_state="active", entities=[play], handle_once=True))]
