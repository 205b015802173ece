# Predict on a CPU: docker build -t gemoclap . && docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/data" gemoclap predict clip.wav
FROM python:3.11-slim
WORKDIR /package
COPY . .
RUN pip install --no-cache-dir --extra-index-url https://download.pytorch.org/whl/cpu -c constraints.txt torch . \
    && gemoclap doctor
# nobody, by number: Kubernetes cannot tell from a name that it is not root
USER 65534:65534
ENV HF_HOME=/tmp/huggingface
WORKDIR /data
ENTRYPOINT ["gemoclap"]
CMD ["--help"]
