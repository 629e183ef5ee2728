# kd-edge on an NVIDIA GPU of a PC (x86-64) with the NVIDIA container toolkit. From the root of the repository:
#   docker build -f launch/docker/cuda.Dockerfile -t kd-edge:cuda .
#   docker run --rm --network none --gpus all --device /dev/video0 kd-edge:cuda
# onnxruntime-gpu 1.27 and later is for CUDA 13 with cuDNN 9: an image of CUDA 12 would fall back to the CPU.
FROM nvidia/cuda:13.1.1-cudnn-runtime-ubuntu24.04 AS build
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends python3-venv && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# hadolint ignore=DL3013
RUN python3 -m venv /opt/kd-edge \
    && /opt/kd-edge/bin/pip install --no-cache-dir '.[gpu,mcap,tensorrt]' \
    && /opt/kd-edge/bin/pip uninstall -y opencv-python \
    && /opt/kd-edge/bin/pip install --no-cache-dir 'opencv-python-headless>=4.8'

FROM nvidia/cuda:13.1.1-cudnn-runtime-ubuntu24.04
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends python3 && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --groups video --home-dir /var/lib/kd-edge --create-home kd-edge \
    && install -d -o kd-edge /run/kd-edge /var/cache/kd-edge
COPY --from=build /opt/kd-edge /opt/kd-edge
COPY --chmod=755 launch/docker/healthy /usr/local/bin/healthy
ENV PATH=/opt/kd-edge/bin:$PATH PYTHONUNBUFFERED=1 OMP_NUM_THREADS=1 KD_EDGE_CACHE=/var/cache/kd-edge
USER 10001
WORKDIR /var/lib/kd-edge
# The first start builds a plan for this GPU, which takes minutes and is kept in /var/cache/kd-edge (a volume).
HEALTHCHECK --interval=15s --timeout=5s --start-period=600s CMD ["healthy"]
ENTRYPOINT ["kd-edge"]
CMD ["run", "--camera", "ir0", "--sink", "terminal:", "--sink", "jsonl:/run/kd-edge/labels.jsonl?max_mb=20"]
