#!/usr/bin/env python3
"""What deploy/ promises, against the program: options and metrics exist, ports and labels agree, times to
stop suffice; and that docs/OPERATIONS.md lists the events that are logged. Where the package
kubernetes-validate can be imported the manifests are also held to Kubernetes' own schemas; without it that
part is passed over aloud. Programs and paths come from ctest's environment."""
import configparser
import fnmatch
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

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


def merge(target, patch):
    """A strategic merge patch as `kubectl patch` applies it: maps merge, lists of what has a name by that
    name, others are replaced."""
    merged = dict(target)
    for key, value in patch.items():
        old = target.get(key)
        if isinstance(value, dict) and isinstance(old, dict):
            merged[key] = merge(old, value)
        elif key in ("containers", "volumes") and old is not None:
            patches = {one["name"]: one for one in value}
            merged[key] = [merge(one, patches.pop(one["name"], {})) for one in old] + list(patches.values())
        else:
            merged[key] = value
    return merged


def metrics_of(header):
    """The names that /metrics shows counters and histograms under."""
    names = set()
    for counter in re.findall(r'X\((\w+), "', header):
        names.add(re.sub("_ns$", "_seconds", counter) + "_total")
    for name, scale in re.findall(r"X\((\w+), ([A-Z]+), ", header):
        for suffix in ("bucket", "sum", "count"):
            names.add(f"{name}{'_seconds' if scale == 'TIME' else ''}_{suffix}")
    return {"bestroute_" + name for name in names}


def check_query(query):
    """The autoscaler's query, on series made up: promtool's own tests."""
    promtool = shutil.which("promtool")
    if promtool is None:
        print("SKIPPED: the autoscaler's query, promtool is not installed")
        return
    query = query.replace("<<.LabelMatchers>>", 'pod=~".*"').replace("<<.GroupBy>>", "pod")
    bucket, count = "bestroute_request_queue_seconds_bucket", "bestroute_request_queue_seconds_count"
    series = [(f'{bucket}{{pod="a",le="0.01"}}', 80), (f'{bucket}{{pod="a",le="0.02"}}', 100),
              (f'{bucket}{{pod="a",le="+Inf"}}', 100),
              (f'{count}{{pod="a"}}', 100), (f'{bucket}{{pod="idle",le="0.01"}}', 0),
              (f'{bucket}{{pod="idle",le="+Inf"}}', 0),
              (f'{count}{{pod="idle"}}', 0)]
    test = {"rule_files": ["rules.yaml"], "evaluation_interval": "15s", "tests": [{
        "interval": "15s",
        "input_series": [{"series": name, "values": f"0+{step}x40"} for name, step in series],
        "promql_expr_test": [{"expr": "queue", "eval_time": "5m", "exp_samples": [
            {"labels": 'queue{pod="a"}', "value": 15}, {"labels": 'queue{pod="idle"}', "value": 0}]}]}]}
    with tempfile.TemporaryDirectory() as folder:
        for name, content in (("rules.yaml",
                               {"groups": [{"name": "g", "rules": [{"record": "queue", "expr": query}]}]}),
                              ("test.yaml", test)):
            with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
                yaml.safe_dump(content, file)
        subprocess.run([promtool, "test", "rules", os.path.join(folder, "test.yaml")], check=True)


def check_unit():
    """What systemd itself says of the unit, but that the program is not installed;
    and how exposed it leaves the machine."""
    if shutil.which("systemd-analyze") is None:
        print("SKIPPED: the unit, systemd-analyze is not installed")
        return
    unit = os.path.join(SOURCE, "deploy/systemd/bestroute.service")
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    said = [line for line in done.stderr.splitlines() if "bestrouted is not executable" not in line
            and "bestroute" in line]
    assert not said, said
    done = subprocess.run(["systemd-analyze", "security", "--offline=true", unit], capture_output=True,
                          text=True, check=False)
    level = re.search(r"Overall exposure level for bestroute.service: ([\d.]+)", done.stdout)
    assert level and float(level[1]) <= 2, done.stdout + done.stderr


def events_logged():
    """Every event's name, by the calls in the sources."""
    names = set()
    for file in pathlib.Path(SOURCE, "src").rglob("*.[ch]"):
        for call in re.findall(r"BR_LOG\(.*?;", file.read_text(encoding="utf-8"), re.DOTALL):
            names |= set(re.findall(r'"(\w+)"', call.split("BR_STR")[0].split("BR_I64")[0]))
    return names


def check_log_page(page):
    table = page.split("## The log")[1].split("\n## ")[0]
    listed = set(re.findall(r"`(\w+)`", "".join(line.split("|")[1] for line in table.splitlines()
                                                if line.startswith("|"))))
    assert listed == events_logged(), listed ^ events_logged()


def main():
    shown = subprocess.run([DAEMON, "--help"], capture_output=True, text=True, check=True).stdout
    known = {name.replace("-", "_") for name in re.findall(r"^  --([a-z-]+) ", shown, re.MULTILINE)}
    assert {"bundle", "metrics", "drain_timeout_ms"} <= known

    # Kubernetes.
    objects = {o["kind"]: o for o in yaml.safe_load_all(read("deploy/kubernetes/bestroute.yaml"))}
    assert set(objects) == {"ConfigMap", "Deployment", "Service", "PodDisruptionBudget",
                            "HorizontalPodAutoscaler"}
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
    probes = {name: container[name]["httpGet"]["path"]
              for name in ("startupProbe", "readinessProbe", "livenessProbe")}
    assert probes == {"startupProbe": "/readyz", "readinessProbe": "/readyz", "livenessProbe": "/healthz"}
    assert "/etc/bestroute/" in container["args"][1]
    assert container["volumeMounts"][0]["mountPath"] == "/etc/bestroute"
    scaler = objects["HorizontalPodAutoscaler"]["spec"]
    assert scaler["scaleTargetRef"]["name"] == objects["Deployment"]["metadata"]["name"]
    rule, = yaml.safe_load(read("deploy/kubernetes/adapter.yaml"))["rules"]
    assert scaler["metrics"][0]["pods"]["metric"]["name"] == rule["name"]["as"]
    known_metrics = metrics_of(read("src/workers/metrics.h"))
    used = set(re.findall(r"bestroute_\w+",
                          rule["metricsQuery"] + rule["seriesQuery"] + rule["name"]["matches"]))
    assert used and used <= known_metrics, used - known_metrics
    check_query(rule["metricsQuery"])
    patched = merge(objects["Deployment"], yaml.safe_load(read("deploy/kubernetes/gpu.yaml")))
    on_gpu, = patched["spec"]["template"]["spec"]["containers"]
    assert on_gpu["resources"]["limits"]["nvidia.com/gpu"] == "1" and on_gpu["image"] != container["image"]
    for kept in ("args", "ports", "securityContext", "readinessProbe", "volumeMounts"):
        assert on_gpu[kept] == container[kept], kept
    try:
        import kubernetes_validate
        for one in [*objects.values(), patched]:
            kubernetes_validate.validate(one, "1.29", strict=True)
        print("manifests pass Kubernetes' schemas")
    except ImportError:
        print("SKIPPED: Kubernetes' schemas, kubernetes-validate is not installed")

    # systemd.
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str
    unit.read_string(read("deploy/systemd/bestroute.service"))
    check_options(read("deploy/systemd/bestroute.conf"), known)
    assert unit["Service"]["ExecStart"].split() == ["/usr/bin/bestrouted",
                                                    "--config", "/etc/bestroute/bestroute.conf"]
    default = int(re.search(r"--drain-timeout-ms.*?\[(\d+)\]", shown, re.DOTALL)[1])
    assert int(unit["Service"]["TimeoutStopSec"]) > default / 1000
    assert "HUP" in unit["Service"]["ExecReload"]
    allowed, rights = unit["Service"]["DeviceAllow"].split()
    assert rights == "rw"
    for group in ("nvidia", "nvidia-frontend", "nvidia-uvm", "nvidia-caps", "nvidia-caps-imex-channels"):
        assert fnmatch.fnmatchcase("char-" + group, allowed), group
    assert not fnmatch.fnmatchcase("char-nvme", allowed)
    check_unit()

    check_log_page(read("docs/OPERATIONS.md"))

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
