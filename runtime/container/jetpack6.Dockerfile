# fer-edge on JetPack 6.1 and 6.2 (Jetson Orin). Build on the Jetson, from the project's folder, after `python -m build`:
#   docker build -f runtime/container/jetpack6.Dockerfile -t fer-edge:jetpack6 .
#   docker run --rm --runtime nvidia --network none --read-only --device /dev/video0 fer-edge:jetpack6 \
#       run base --source /dev/video0 --json -
ARG BASE=nvcr.io/nvidia/l4t-jetpack:r36.4.0
FROM ${BASE}

# Ubuntu's OpenCV reads GStreamer pipelines; pip's does not.
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        python3 python3-venv python3-numpy python3-opencv opencv-data \
    && rm -rf /var/lib/apt/lists/*

COPY runtime/install-jetson.sh /kit/
COPY runtime/requirements /kit/requirements
COPY dist/*.whl /kit/
RUN /kit/install-jetson.sh --jetpack 6 --venv /opt/fer-edge --wheel "$(ls -t /kit/*.whl | head -n 1)" \
    && useradd --system --groups video fer-edge

ENV OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE=1
USER fer-edge
ENTRYPOINT ["/opt/fer-edge/bin/fer-edge"]
CMD ["doctor"]
