#!/usr/bin/env bash
# Renders the chart with each file of helm/tests/values into helm/tests/rendered, with helm itself ($HELM, or `helm`).
# To be run after every change of the chart: a test refuses manifests that are older than the templates.
set -euo pipefail
cd "$(dirname "$0")/.."
helm=${HELM:-helm}
command -v "$helm" >/dev/null || { echo "render: helm is missing: install it, or name it with HELM" >&2; exit 1; }
for values in tests/values/*.yaml; do
  name=$(basename "$values" .yaml)
  "$helm" lint --quiet spectemp -f "$values"
  "$helm" template demo spectemp --namespace video -f "$values" >"tests/rendered/$name.yaml"
  echo "rendered $name: $(grep -c '^kind:' "tests/rendered/$name.yaml") objects"
done
# What the manifests were made from.
find spectemp tests/values -type f | LC_ALL=C sort | xargs sha256sum | sha256sum | cut -d' ' -f1 >tests/rendered/SOURCE
