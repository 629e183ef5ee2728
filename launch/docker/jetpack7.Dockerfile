# kd-edge on a Jetson (Orin, Thor) with JetPack 7.2 and later. On the Jetson, from the root of the repository:
#   docker build -f launch/docker/jetpack7.Dockerfile -t kd-edge:jetpack7 .
#   docker run --rm --network none --runtime nvidia --device /dev/video0 kd-edge:jetpack7
# From JetPack 7.2 on the ordinary image for Arm servers (SBSA) runs on Orin, too. Images whose tag ends in -igpu do not:
# their TensorRT needs libnvdla_compiler.so, which Jetson Linux R39 no longer has. 26.05 brings TensorRT 10.16, which is
# what JetPack 7.2 has; TensorRT 11 in later ones does not run on Orin before JetPack 7.2.2.
FROM nvcr.io/nvidia/tensorrt:26.05-py3
# The system's OpenCV (with GStreamer); TensorRT is the image's own.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends python3-opencv python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --groups video --home-dir /var/lib/kd-edge --create-home kd-edge \
    && install -d -o kd-edge /run/kd-edge /var/cache/kd-edge
WORKDIR /src
COPY . .
# There is no onnxruntime-gpu for aarch64 on PyPI: ONNX Runtime is what serves where TensorRT does not. The system's OpenCV
# is built for NumPy 1.
# hadolint ignore=DL3013
RUN python3 -m venv --system-site-packages /opt/kd-edge \
    && /opt/kd-edge/bin/pip install --no-cache-dir '.[jetson]' 'cuda-python>=13,<14' 'numpy<2' onnxruntime \
    && /opt/kd-edge/bin/python -c "import cv2, tensorrt; print(cv2.__version__, tensorrt.__version__)" \
    && install -m 755 launch/docker/healthy /usr/local/bin/healthy \
    && rm -rf /src/*
ENV PATH=/opt/kd-edge/bin:$PATH PYTHONUNBUFFERED=1 OMP_NUM_THREADS=1 KD_EDGE_CACHE=/var/cache/kd-edge
USER 10001
WORKDIR /var/lib/kd-edge
# The first start builds a plan for this GPU, which takes minutes and is kept in /var/cache/kd-edge (a volume).
HEALTHCHECK --interval=15s --timeout=5s --start-period=600s CMD ["healthy"]
ENTRYPOINT ["kd-edge"]
CMD ["run", "--camera", "ir0", "--sink", "terminal:", "--sink", "jsonl:/run/kd-edge/labels.jsonl?max_mb=20"]
