#!/bin/sh
# Has the shell scripts and Prometheus's files in deploy/ judged by the tools that will read them. The unit, the
# Dockerfile, the compose file, the chart and RabbitMQ's definitions are judged in tests/unit/deploy/.
set -eu
cd "$(dirname -- "$0")/.."

scripts/install_tools.sh promtool shellcheck
find deploy scripts docs/examples -name '*.sh' -exec shellcheck {} +
promtool check config deploy/prometheus/prometheus.yml
promtool test rules deploy/prometheus/rules_test.yml
python3 scripts/copy_chart_files.py --check
