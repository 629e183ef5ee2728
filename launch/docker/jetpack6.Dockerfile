# kd-edge on a Jetson Orin with JetPack 6 (Jetson Linux R36). On the Jetson, from the root of the repository:
#   docker build -f launch/docker/jetpack6.Dockerfile -t kd-edge:jetpack6 .
#   docker run --rm --network none --runtime nvidia --device /dev/video0 kd-edge:jetpack6
# TensorRT's libnvdla_compiler.so comes from the host with --runtime nvidia: where a vendor's system lacks it,
# sudo apt install nvidia-l4t-dla-compiler on the host.
FROM nvcr.io/nvidia/l4t-jetpack:r36.4.0
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends python3-libnvinfer python3-opencv python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --groups video --home-dir /var/lib/kd-edge --create-home kd-edge \
    && install -d -o kd-edge /run/kd-edge /var/cache/kd-edge
WORKDIR /src
COPY . .
# Python 3.10, CUDA 12.6. The system's OpenCV is built for NumPy 1. TensorRT is not imported here: a build has no GPU.
# hadolint ignore=DL3013
RUN python3 -m venv --system-site-packages /opt/kd-edge \
    && /opt/kd-edge/bin/pip install --no-cache-dir '.[jetson]' 'cuda-python>=12.6.1,<13' 'numpy<2' onnxruntime \
    && /opt/kd-edge/bin/python -c "import cv2, importlib.util; assert importlib.util.find_spec('tensorrt')" \
    && install -m 755 launch/docker/healthy /usr/local/bin/healthy \
    && rm -rf /src/*
ENV PATH=/opt/kd-edge/bin:$PATH PYTHONUNBUFFERED=1 OMP_NUM_THREADS=1 KD_EDGE_CACHE=/var/cache/kd-edge
USER 10001
WORKDIR /var/lib/kd-edge
# The first start builds a plan for this GPU, which takes minutes and is kept in /var/cache/kd-edge (a volume).
HEALTHCHECK --interval=15s --timeout=5s --start-period=600s CMD ["healthy"]
ENTRYPOINT ["kd-edge"]
CMD ["run", "--camera", "ir0", "--sink", "terminal:", "--sink", "jsonl:/run/kd-edge/labels.jsonl?max_mb=20"]
