# bestroute on the CPU: docker build -t bestroute .
# On GPUs:             docker build -t bestroute --build-arg BUILD_IMAGE=nvidia/cuda:12.8.1-devel-ubuntu24.04 \
#                                   --build-arg RUN_IMAGE=nvidia/cuda:12.8.1-runtime-ubuntu24.04 .
# Serve a bundle of your own by mounting it at /bundle.
ARG BUILD_IMAGE=debian:bookworm
ARG RUN_IMAGE=debian:bookworm-slim

FROM ${BUILD_IMAGE} AS build
COPY cmake/install-packages.sh cmake/packages.txt /src/cmake/
RUN apt-get update && /src/cmake/install-packages.sh /src/cmake/packages.txt
COPY . /src
# No device is visible while an image is built, so a toolkit decides.
RUN cmake -S /src -B /build -G Ninja -DCMAKE_BUILD_TYPE=Release -DBESTROUTE_TESTS=OFF -DCMAKE_INSTALL_PREFIX=/usr \
        -DBESTROUTE_CUDA=$(if command -v nvcc >/dev/null; then echo ON; else echo OFF; fi) \
    && cmake --build /build --target programs && DESTDIR=/root-of-image cmake --install /build --strip \
    && mkdir -p /root-of-image/bundle && cp /src/weights/demo/*.json /src/weights/demo/model.safetensors \
       /src/weights/demo/spm.model /root-of-image/bundle/

FROM ${RUN_IMAGE}
RUN apt-get update && { apt-get install -y --no-install-recommends libnng1 libdnnl2 libjansson4 libssl3 \
        libgomp1 zlib1g || apt-get install -y --no-install-recommends libnng1 libdnnl3 libjansson4 libssl3 \
        libgomp1 zlib1g; } \
    && rm -rf /var/lib/apt/lists/* && useradd --system --uid 10001 --no-create-home bestroute
COPY --from=build /root-of-image/ /
USER 10001
EXPOSE 5555 9090
ENV BESTROUTE_BUNDLE=/bundle BESTROUTE_LISTEN=tcp://0.0.0.0:5555 BESTROUTE_METRICS=http://0.0.0.0:9090
STOPSIGNAL SIGTERM
HEALTHCHECK --start-period=60s CMD ["bestroute", "ping", "--url", "tcp://127.0.0.1:5555", "--timeout-ms", "2000"]
ENTRYPOINT ["bestrouted"]
