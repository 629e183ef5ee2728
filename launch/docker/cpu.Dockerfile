# kd-edge on the CPU, x86-64 or aarch64. From the root of the repository:
#   docker build -f launch/docker/cpu.Dockerfile -t kd-edge:cpu .
#   docker run --rm --network none --device /dev/video0 kd-edge:cpu
FROM python:3.12-slim-bookworm AS build
WORKDIR /src
COPY . .
# OpenCV without a display: the other one wants libGL, which is larger than all the rest.
# hadolint ignore=DL3013
RUN python -m venv /opt/kd-edge \
    && /opt/kd-edge/bin/pip install --no-cache-dir '.[cpu,mcap]' \
    && /opt/kd-edge/bin/pip uninstall -y opencv-python \
    && /opt/kd-edge/bin/pip install --no-cache-dir 'opencv-python-headless>=4.8'

FROM python:3.12-slim-bookworm
COPY --from=build /opt/kd-edge /opt/kd-edge
COPY --chmod=755 launch/docker/healthy /usr/local/bin/healthy
RUN useradd --system --uid 10001 --groups video --home-dir /var/lib/kd-edge --create-home kd-edge \
    && install -d -o kd-edge /run/kd-edge /var/cache/kd-edge
ENV PATH=/opt/kd-edge/bin:$PATH PYTHONUNBUFFERED=1 OMP_NUM_THREADS=1 KD_EDGE_CACHE=/var/cache/kd-edge
USER 10001
WORKDIR /var/lib/kd-edge
HEALTHCHECK --interval=15s --timeout=5s --start-period=40s CMD ["healthy"]
ENTRYPOINT ["kd-edge"]
CMD ["run", "--camera", "ir0", "--sink", "terminal:", "--sink", "jsonl:/run/kd-edge/labels.jsonl?max_mb=20"]
