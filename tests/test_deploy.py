#!/usr/bin/env python3
"""What deploy/ promises, against the program: options and metrics exist, ports and labels agree, times to stop suffice. Where the
package kubernetes-validate can be imported the manifests are also held to Kubernetes' own schemas; without it that part is
passed over aloud. Programs and paths come from ctest's environment."""
import configparser
import os
import re
import subprocess
import sys

import yaml

DAEMON = os.environ["BESTROUTED"]
SOURCE = os.environ["BESTROUTE_SOURCE"]


def read(*path):
    with open(os.path.join(SOURCE, *path), encoding="utf-8") as file:
        return file.read()


def options_of(conf):
    lines = [line.split("#")[0].strip() for line in conf.splitlines()]
    return dict(re.split(r"\s*=\s*", line, maxsplit=1) for line in lines if line)


def check_options(conf, known):
    options = options_of(conf)
    unknown = set(options) - known
    assert not unknown, unknown
    return options


def main():
    shown = subprocess.run([DAEMON, "--help"], capture_output=True, text=True, check=True).stdout
    known = {name.replace("-", "_") for name in re.findall(r"^  --([a-z-]+) ", shown, re.MULTILINE)}
    assert {"bundle", "metrics", "drain_timeout_ms"} <= known

    # Kubernetes.
    objects = {o["kind"]: o for o in yaml.safe_load_all(read("deploy/kubernetes/bestroute.yaml"))}
    assert set(objects) == {"ConfigMap", "Deployment", "Service", "PodDisruptionBudget", "HorizontalPodAutoscaler"}
    conf = check_options(objects["ConfigMap"]["data"]["bestroute.conf"], known)
    deployment = objects["Deployment"]["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    for selector in (deployment["selector"]["matchLabels"], objects["Service"]["spec"]["selector"],
                     objects["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"]):
        assert selector.items() <= labels.items(), selector
    pod = deployment["template"]["spec"]
    container, = pod["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert conf["listen"].endswith(f":{ports['data']}") and conf["metrics"].endswith(f":{ports['metrics']}")
    for port in objects["Service"]["spec"]["ports"]:
        assert ports[port["targetPort"]] == port["port"]
    assert deployment["template"]["metadata"]["annotations"]["prometheus.io/port"] == str(ports["metrics"])
    pre_stop = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] > pre_stop + int(conf["drain_timeout_ms"]) / 1000
    probes = {name: container[name]["httpGet"]["path"] for name in ("startupProbe", "readinessProbe", "livenessProbe")}
    assert probes == {"startupProbe": "/readyz", "readinessProbe": "/readyz", "livenessProbe": "/healthz"}
    assert "/etc/bestroute/" in container["args"][1]
    assert container["volumeMounts"][0]["mountPath"] == "/etc/bestroute"
    scaler = objects["HorizontalPodAutoscaler"]["spec"]
    assert scaler["scaleTargetRef"]["name"] == objects["Deployment"]["metadata"]["name"]
    rule, = yaml.safe_load(read("deploy/kubernetes/adapter.yaml"))["rules"]
    assert scaler["metrics"][0]["pods"]["metric"]["name"] == rule["name"]["as"]
    counters = set(re.findall(r"X\((\w+)\)", read("include/bestroute/metrics.h")))
    for name in re.findall(r"bestroute_(\w+)_total", rule["metricsQuery"]):
        assert name in counters or (name.endswith("_seconds") and name[:-8] + "_ns" in counters), name
    patched, = yaml.safe_load(read("deploy/kubernetes/gpu.yaml"))["spec"]["template"]["spec"]["containers"]
    assert patched["name"] == container["name"] and patched["resources"]["limits"]["nvidia.com/gpu"] == "1"
    try:
        import kubernetes_validate
        for one in objects.values():
            kubernetes_validate.validate(one, "1.29", strict=True)
        print("manifests pass Kubernetes' schemas")
    except ImportError:
        print("SKIPPED: Kubernetes' schemas, kubernetes-validate is not installed")

    # systemd.
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str
    unit.read_string(read("deploy/systemd/bestroute.service"))
    check_options(read("deploy/systemd/bestroute.conf"), known)
    assert unit["Service"]["ExecStart"].split() == ["/usr/bin/bestrouted", "--config", "/etc/bestroute/bestroute.conf"]
    default = int(re.search(r"--drain-timeout-ms.*?\[(\d+)\]", shown, re.DOTALL)[1])
    assert int(unit["Service"]["TimeoutStopSec"]) > default / 1000
    assert "HUP" in unit["Service"]["ExecReload"]

    # Docker.
    docker = read("Dockerfile")
    environment, = re.findall(r"^ENV (.*)$", docker, re.MULTILINE)
    for variable in re.findall(r"BESTROUTE_([A-Z_]+)=", environment):
        assert variable.lower() in known, variable
    for path in re.findall(r"^COPY (?!--from)(.*) \S+$", docker, re.MULTILINE):
        for one in path.split():
            assert os.path.exists(os.path.join(SOURCE, one)), one
    return 0


if __name__ == "__main__":
    sys.exit(main())
