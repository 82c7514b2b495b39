#!/usr/bin/env bash
# A whole development cluster in kind: cluster, images, S3 server, simulated teacher. Needs docker, kind, kubectl; again: harmless.
#   k8s/dev/kind.sh && helm install flu charts/medkd -n medkd-dev -f charts/medkd/ci/dev-values.yaml
set -euo pipefail
cd "$(dirname "$0")/../.."
kind get clusters | grep -qx medkd || kind create cluster --config k8s/dev/kind.yaml --wait 120s
for image in medkd-worker:dev medkd-trainer:dev medkd-objectstore:dev; do
  docker image inspect "$image" >/dev/null || { echo "no image $image: make images"; exit 1; }
  kind load docker-image --name medkd "$image"
done
kubectl --context kind-medkd apply -k k8s/dev
kubectl --context kind-medkd -n medkd-dev rollout status deployment/objectstore deployment/teacher --timeout=180s
