# The ROS 2 node, a camera driver and a viewer, for compose.yaml. From the root of the repository:
#   docker compose -p kd-edge -f launch/docker/compose.yaml up --build
# Another ROS: --build-arg DISTRO=lyrical --build-arg BASE=ros:lyrical-ros-base (its Debian packages may come later).
ARG BASE=ros:jazzy-ros-base-noble

# hadolint ignore=DL3006
FROM ${BASE} AS ros
ARG DISTRO=jazzy
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends "ros-${DISTRO}-rmw-fastrtps-cpp" \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --groups video,plugdev --home-dir /var/lib/kd-edge --create-home kd-edge \
    && install -d -o kd-edge /run/kd-edge /var/cache/kd-edge
ENV ROS_DISTRO=${DISTRO} ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST RMW_IMPLEMENTATION=rmw_fastrtps_cpp \
    ROS_LOG_DIR=/run/kd-edge

# The camera driver: RealSense, infrared, projector off.
FROM ros AS camera
ARG DISTRO=jazzy
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends "ros-${DISTRO}-realsense2-camera" \
    && rm -rf /var/lib/apt/lists/*
USER 10001
WORKDIR /var/lib/kd-edge
CMD ["ros2", "launch", "realsense2_camera", "rs_launch.py", "enable_color:=false", "enable_depth:=false", \
     "enable_infra1:=true", "depth_module.infra_profile:=640x480x30", "depth_module.emitter_enabled:=0"]

# The viewer's server: Foxglove or Lichtblick connect to ws://localhost:8765. It gets the messages to know their fields.
FROM ros AS messages
WORKDIR /ws
COPY launch/ros2 src
RUN . "/opt/ros/${ROS_DISTRO}/setup.sh" && colcon build --merge-install --install-base /opt/kd-edge/ros2/install

FROM ros AS viewer
ARG DISTRO=jazzy
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends "ros-${DISTRO}-foxglove-bridge" \
    && rm -rf /var/lib/apt/lists/*
COPY --from=messages /opt/kd-edge/ros2 /opt/kd-edge/ros2
COPY --chmod=755 launch/docker/with-ros /usr/local/bin/with-ros
USER 10001
WORKDIR /var/lib/kd-edge
ENTRYPOINT ["with-ros"]
CMD ["bash", "-c", "exec /opt/ros/$ROS_DISTRO/lib/foxglove_bridge/foxglove_bridge --ros-args -p address:=127.0.0.1"]

# The node. Its Python is the system's, which ROS is built for; so are NumPy 1 and OpenCV.
FROM ros AS node
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends python3-opencv python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# hadolint ignore=DL3013
RUN python3 -m venv --system-site-packages /opt/kd-edge/.venv \
    && /opt/kd-edge/.venv/bin/pip install --no-cache-dir '.[mcap]' 'numpy<2' onnxruntime \
    && rm -rf /src/*
COPY --from=messages /opt/kd-edge/ros2 /opt/kd-edge/ros2
COPY --chmod=755 launch/docker/with-ros /usr/local/bin/with-ros
ENV PATH=/opt/kd-edge/.venv/bin:$PATH PYTHONUNBUFFERED=1 OMP_NUM_THREADS=1 KD_EDGE_CACHE=/var/cache/kd-edge
USER 10001
WORKDIR /var/lib/kd-edge
HEALTHCHECK --interval=60s --timeout=20s --start-period=60s \
    CMD ["with-ros", "bash", "-c", "ros2 lifecycle get --no-daemon /action_recognition | grep -q ^active"]
ENTRYPOINT ["with-ros"]
# Not "ros2 run", which does not pass on the signal that stops a container.
CMD ["python", "-c", "from kd_edge.runtime.ros import main; raise SystemExit(main())", \
     "--ros-args", "-p", "topics:=[/camera/camera/infra1/image_rect_raw]"]
