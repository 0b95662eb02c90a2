# A server of an export: numpy, onnxruntime, faiss and FastAPI, without torch and RecBole.
#
#     docker build -t recbole-xling-serve .
#     docker run -p 127.0.0.1:8000:8000 -v "$PWD/shop-export:/export" recbole-xling-serve
#
# Items that are withdrawn or added are written to the folder of the export: give --user "$(id -u)", or mount it with :ro.
# Whoever reaches the port may ask and change everything: see docs/serving.md.
FROM python:3.12-slim

RUN useradd --create-home --uid 10001 serve
WORKDIR /app

# Those of the extra "serve", what tells the meaning of language tags, and what the command line reads and prints with.
RUN pip install --no-cache-dir "numpy>=1.26" "onnxruntime>=1.19" "faiss-cpu>=1.8" "usearch>=2.12" "fastapi>=0.115" "uvicorn>=0.30" \
    "prometheus-client>=0.20" "langcodes>=3.4" "language_data>=1.2" "pyyaml>=5.1" "tabulate>=0.9"

COPY setup.cfg pyproject.toml README.md LICENSE ./
COPY properties ./properties
COPY datasets ./datasets
COPY recbole_xling ./recbole_xling
RUN pip install --no-cache-dir --no-deps .

USER serve
ENV OMP_NUM_THREADS=1
EXPOSE 8000
VOLUME /export
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=4)"]
CMD ["recbole-xling", "serve", "/export", "--host", "0.0.0.0", "--port", "8000"]
