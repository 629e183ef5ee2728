"""A recorded bag through the action recognition node: ros2 launch kd_edge bag.launch.py bag:=DIR topics:=/image.

All arguments of kd_edge.launch.py hold here, too.
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
"""How often /clock is published: 40 a second, rosbag2's own choice, would make a frame look 25 ms too young."""


def generate_launch_description() -> LaunchDescription:
    """The node on simulated time; the bag begins once the node is active."""
    there = PathJoinSubstitution([FindPackageShare("kd_edge"), "launch", "kd_edge.launch.py"])
    settled = {"driver": "none", "use_sim_time": "true", "lifecycle": "launch"}
    return LaunchDescription(
        [
            DeclareLaunchArgument("bag", description="Folder or file that ros2 bag record has written."),
            DeclareLaunchArgument("rate", default_value="1.0", description="How fast it is played."),
            DeclareLaunchArgument(
                "loop", default_value="false", choices=["true", "false"], description="Begin anew at its end."
            ),
            OpaqueFunction(function=play_once_active),
            IncludeLaunchDescription(PythonLaunchDescriptionSource(there), launch_arguments=settled.items()),
        ]
    )


def play_once_active(context: LaunchContext) -> list[Action]:
    """Play the bag when the node can label it, and end when it is over."""
    bag, rate, loop = (LaunchConfiguration(name).perform(context) for name in ("bag", "rate", "loop"))
    command = ["ros2", "bag", "play", bag, "--rate", rate, "--clock", CLOCK_HZ, "--disable-keyboard-controls"]
    play = ExecuteProcess(
        cmd=[*command, "--loop"] if loop == "true" else command,
        output="screen",
        on_exit=[Shutdown(reason="the bag is over")],
    )
    return [RegisterEventHandler(OnStateTransition(goal_state="active", entities=[play], handle_once=True))]
