# stormdrill, its reference platform and the fault proxy, in one image. Any base with Python 3.11 or newer serves:
# python:3-slim, or a Debian with python3. What they import is put into site/ and own/ by stormdrill before the build,
# which needs no network; what others wrote comes first, since it changes less often.
ARG BASE=python:3.12-slim
FROM ${BASE}
ENV PYTHONPATH=/opt/stormdrill PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
COPY site/ /opt/stormdrill/
RUN ["python3", "-m", "compileall", "-q", "-j", "0", "--invalidation-mode", "unchecked-hash", "/opt/stormdrill"]
COPY own/ /opt/stormdrill/
RUN ["python3", "-m", "compileall", "-q", "-j", "0", "--invalidation-mode", "unchecked-hash", "/opt/stormdrill/stormdrill"]
RUN ["python3", "-c", "import aiohttp, locust, msgspec, numpy, stormdrill.cli.main, stormdrill.cluster, stormdrill.proxy.relay, stormdrill.platform.service"]
WORKDIR /tmp
