# The reference platform and the fault proxy, in one image. Any base with Python 3.11 or newer serves: python:3-slim,
# or a Debian with python3. What they import is put into site/ by stormdrill before the build, which needs no network.
ARG BASE=python:3.12-slim
FROM ${BASE}
COPY site/ /opt/stormdrill/
ENV PYTHONPATH=/opt/stormdrill PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
RUN ["python3", "-m", "compileall", "-q", "-j", "0", "--invalidation-mode", "unchecked-hash", "/opt/stormdrill"]
RUN ["python3", "-c", "import aiohttp, msgspec, stormdrill.proxy.relay, stormdrill.platform.service"]
WORKDIR /tmp
