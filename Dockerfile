# Predict on a CPU: docker build -t gemoclap . && docker run --rm -v "$PWD:/data" gemoclap predict clip.wav
FROM python:3.11-slim
WORKDIR /package
COPY . .
RUN pip install --no-cache-dir --extra-index-url https://download.pytorch.org/whl/cpu -c constraints.txt torch . \
    && gemoclap doctor
USER nobody
ENV HF_HOME=/tmp/huggingface
WORKDIR /data
ENTRYPOINT ["gemoclap"]
CMD ["--help"]
