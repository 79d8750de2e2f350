# The simulators of the shop and of Graph, for compose.
FROM python:3.13-slim
WORKDIR /src
COPY constraints.txt ./
COPY simulators simulators
RUN pip install --no-cache-dir -c constraints.txt ./simulators && useradd --system --uid 10001 --no-create-home wch
USER 10001
