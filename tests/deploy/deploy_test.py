"""The files of deploy/ against what they speak of: Kubernetes' schemas, the programs' flags, the metrics that there are.

  deploy_test.py BIN     needs PyYAML and kubernetes-validate, kubectl and promtool, openssl and haproxy of setup.sh
"""

import base64
import functools
import glob
import hashlib
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

import kubernetes_validate
import yaml

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
DEPLOY = os.path.join(ROOT, "deploy")
COMPOSE_FILES = (("..", "docker-compose.yml"), ("compose", "standalone.yml"))
KUBERNETES = "1.31"
WORKLOAD_KINDS = ("Deployment", "StatefulSet", "Job", "CronJob")
OPERATOR_KINDS = ("ServiceMonitor", "PrometheusRule")  # of the Prometheus operator: no part of the published schemas
BIN = sys.argv.pop(1)
TOOLS = os.path.dirname(sys.executable)
SERVICES = ("retro-retriever", "retro-shard", "retro-generator")
# What is applied; the other folders are parts of these.
OVERLAYS = ("backup", "build", "cpu", "cuda", "documents", "model", "prebuilt", "proxy", "shard-volume")


def read(*names):
    with open(os.path.join(DEPLOY, *names), encoding="utf-8") as f:
        return f.read()


@functools.cache
def built(overlay):
    """What `kubectl apply -k` would apply."""
    run = subprocess.run([os.path.join(TOOLS, "kubectl"), "kustomize", os.path.join(DEPLOY, "k8s", overlay)], capture_output=True, text=True, check=False)
    if run.returncode != 0:
        raise AssertionError(f"{overlay} cannot be built: {run.stderr}")
    return list(yaml.safe_load_all(run.stdout))


def manifests():
    """Where it is said and the object, of all that any overlay applies."""
    for overlay in OVERLAYS:
        for document in built(overlay):
            yield f"{overlay}: {document['kind']} {document['metadata']['name']}", document


def objects(overlay, *kinds):
    """By name."""
    return {document["metadata"]["name"]: document for document in built(overlay) if document["kind"] in kinds}


def pods():
    """Path and object, with its labels and its specification, of every pod that there is or that a workload makes."""
    for path, document in manifests():
        if document["kind"] in WORKLOAD_KINDS:
            yield path, document["spec"].get("jobTemplate", document)["spec"]["template"]
        elif document["kind"] == "Pod":
            yield path, document


def workloads():
    """Path and pod specification of everything that runs pods."""
    return ((path, pod["spec"]) for path, pod in pods())


def heads(*folders):
    """What the first lines of kustomizations ask for; what is said of each of several, once for each."""
    head = "".join(read("k8s", folder, "kustomization.yaml").split("apiVersion:")[0] for folder in folders)
    return re.sub(r"for (\w+) in ([\w ]+); do (.*?); done",
                  lambda loop: "\n# ".join(loop[3].replace("$" + loop[1], each) for each in loop[2].split()), head, flags=re.S)


def volumes():
    """Path, pod specification and (kind, name) of every secret and claim that a pod mounts."""
    for path, pod in workloads():
        for volume in pod.get("volumes", []):
            if "secret" in volume:
                yield path, pod, ("secret", volume["secret"]["secretName"])
            if "persistentVolumeClaim" in volume:
                yield path, pod, ("claim", volume["persistentVolumeClaim"]["claimName"])


def paths_in(arguments):
    """The absolute paths that flags name, by flag."""
    return dict(argument.split("=", 1) for argument in arguments if "=/" in argument)


def flags_of(program, *command):
    text = subprocess.run([os.path.join(BIN, program), *command, "--help"], capture_output=True, text=True, check=True).stdout
    return set(re.findall(r"--[a-z][a-z0-9-]*", text))


def runbook(title):
    """What stands under that heading."""
    with open(os.path.join(ROOT, "docs", "runbooks.md"), encoding="utf-8") as f:
        return f.read().split(f"\n## {title}\n")[1].split("\n## ")[0]


def program_of(image):
    return image.rsplit("/", 1)[-1].split(":")[0]


def metrics_in(text):
    names = set(re.findall(r"\bretro_[a-z0-9_]+", text))
    return {re.sub(r"_bucket$", "", name) for name in names}


class Kubernetes(unittest.TestCase):
    def test_manifests_are_to_the_schemas(self):
        seen = 0
        for path, document in manifests():
            if document["kind"] in OPERATOR_KINDS:
                continue
            with self.subTest(path=path, kind=document["kind"]):
                kubernetes_validate.validate(document, KUBERNETES, strict=True)
                seen += 1
        self.assertGreater(seen, 10)

    def test_a_wrong_manifest_is_found(self):
        with self.assertRaises(Exception):
            kubernetes_validate.validate({"apiVersion": "v1", "kind": "Service", "spec": {"port": 1}}, KUBERNETES, strict=True)

    def test_every_folder_is_part_of_an_overlay(self):
        folders = {os.path.dirname(path) for path in glob.glob(os.path.join(DEPLOY, "k8s", "**", "kustomization.yaml"), recursive=True)}
        used = {os.path.join(DEPLOY, "k8s", overlay) for overlay in OVERLAYS}
        for folder in folders:
            with open(os.path.join(folder, "kustomization.yaml"), encoding="utf-8") as f:
                used |= {os.path.realpath(os.path.join(folder, resource)) for resource in yaml.safe_load(f)["resources"]}
        self.assertLessEqual(folders, used)

    def test_every_image_is_one_of_ours_from_the_registry_that_is_named(self):
        for path, pod in workloads():
            for container in pod.get("initContainers", []) + pod["containers"]:
                self.assertRegex(container["image"], r"^localhost/retro(-[a-z]+)?:latest$", path)

    def test_the_cluster_file_names_the_pods_that_there_are(self):
        for overlay in ("cpu", "cuda", "prebuilt"):
            pods = {f"{name}-{number}": f"{name}-{number}.{document['spec']['serviceName']}:7710"
                    for name, document in objects(overlay, "StatefulSet").items() for number in range(document["spec"]["replicas"])}
            cluster = json.loads(objects(overlay, "ConfigMap")["retro-cluster"]["data"]["cluster.json"])
            self.assertEqual({replica["name"]: replica["address"] for shard in cluster["shards"] for replica in shard["replicas"]}, pods)
            for number, shard in enumerate(cluster["shards"]):
                for replica in shard["replicas"]:
                    workload = objects(overlay, "StatefulSet")[replica["name"].rsplit("-", 1)[0]]
                    self.assertEqual(workload["spec"]["template"]["metadata"]["labels"]["retro/shard"], str(number))
            self.assertLessEqual({document["spec"]["serviceName"] for document in objects(overlay, "StatefulSet").values()},
                                 set(objects(overlay, "Service")))

    def test_what_selects_pods_selects_those_of_one_workload(self):
        for overlay in ("cpu", "cuda", "prebuilt"):
            labels = {name: document["spec"]["template"]["metadata"]["labels"]
                      for name, document in objects(overlay, *WORKLOAD_KINDS).items()}
            selectors = {name: document["spec"]["selector"] for name, document in objects(overlay, "Service").items()}
            selectors |= {f"budget {name}": document["spec"]["selector"]["matchLabels"]
                          for name, document in objects(overlay, "PodDisruptionBudget").items()}
            self.assertGreater(len(selectors), 7)
            for name, selector in selectors.items():
                self.assertEqual([workload for workload, has in labels.items() if selector.items() <= has.items()],
                                 [name.removeprefix("budget ")], overlay)

    def test_an_apply_does_not_undo_what_an_autoscaler_did(self):
        for overlay in ("cpu", "cuda", "prebuilt"):
            scalers = objects(overlay, "HorizontalPodAutoscaler")
            self.assertEqual(set(scalers), {"retro-generator", "retro-router"})
            for scaler in scalers.values():
                target = scaler["spec"]["scaleTargetRef"]
                self.assertNotIn("replicas", objects(overlay, target["kind"])[target["name"]]["spec"], overlay)

    def test_nothing_runs_with_more_rights_than_it_needs(self):
        for path, pod in workloads():
            self.assertTrue(pod["securityContext"]["runAsNonRoot"], path)
            self.assertFalse(pod["automountServiceAccountToken"], path)
            for container in pod.get("initContainers", []) + pod["containers"]:
                self.check_rights(path, container)

    def check_rights(self, path, container):
        context = container["securityContext"]
        self.assertTrue(context["readOnlyRootFilesystem"], path)
        self.assertFalse(context["allowPrivilegeEscalation"], path)
        self.assertEqual(context["capabilities"]["drop"], ["ALL"], path)
        self.assertIn("memory", container["resources"]["limits"], path)

    def test_every_pod_is_given_its_own_keys_and_no_others(self):
        head = heads("base", "backup")
        holds = {name: dict(re.findall(r"--from-file=([\w.-]+)=(\S+)", line)) for name, line in
                 re.findall(r"create secret generic (\S+)((?: \\\n#| *--from-file=\S+)+)", head)}
        self.assertEqual(len(holds), 7)
        seen = 0
        for path, pod in pods():
            secrets = {volume["name"]: volume["secret"] for volume in pod["spec"].get("volumes", []) if "secret" in volume}
            for container in pod["spec"].get("initContainers", []) + pod["spec"]["containers"]:
                given = set()
                for mount in container["volumeMounts"]:
                    secret = secrets.get(mount["name"])
                    if secret is not None and secret["secretName"] != "retro-proxy":
                        files = {item["path"] for item in secret.get("items", [])} or set(holds[secret["secretName"]])
                        if "tls.key" in files:
                            service = pod["metadata"]["labels"]["app"].removeprefix("retro-")
                            self.assertEqual(holds[secret["secretName"]]["tls.key"], f"secrets/{service}.key", path)
                        given |= {f"{mount['mountPath']}/{file}" for file in files}
                needed = {file for file in paths_in(container.get("args", [])).values() if file.startswith(("/tls/", "/keys/", "/own-key/"))}
                self.assertEqual(given - {"/tls/ca.crt"}, needed - {"/tls/ca.crt"}, path)
                seen += bool(given)
        self.assertGreater(seen, 12)

    def test_the_proxy_is_given_what_it_reads(self):
        files = set(re.findall(r"--from-file=([\w.-]+)=", heads("proxy")))
        self.assertEqual(files, set(re.findall(r"/secrets/([\w.-]+)", read("compose", "haproxy.cfg"))) | {"proxy.pem.key"})

    def test_the_certificates_have_the_names_that_are_called(self):
        (names,) = re.findall(r"^# +bash deploy/secrets.sh secrets (.*?[^\\])$", read("k8s", "base", "kustomization.yaml"), re.M | re.S)
        names = names.replace("\\\n#", "")
        names = subprocess.run(["bash", "-c", f"echo {names}"], capture_output=True, text=True, check=True).stdout.split()
        called = {replica["address"] for shard in self.cluster_file()["shards"] for replica in shard["replicas"]}
        for path, pod in workloads():
            for container in pod["containers"]:
                for argument in container.get("args", []):
                    if argument.startswith("--retriever="):
                        called.add(argument.split("dns:///")[1])
                for variable in container.get("env", []):
                    if variable["name"] in ("ROUTER", "GENERATOR"):
                        called.add(variable["value"])
        called |= set(re.findall(r"dns:///([\w.-]+)", read("k8s", "base", "kustomization.yaml")))
        self.assertGreater(len(called), 8)
        self.assertLessEqual({f"{re.match('retro-(router|generator|shard)', name)[1]}={name.split(':')[0]}" for name in called}, set(names))

    def cluster_file(self):
        return json.loads(objects("cpu", "ConfigMap")["retro-cluster"]["data"]["cluster.json"])

    def run_script(self, script, folder, **environment):
        """What a container runs, with its volumes in `folder`; its exit code."""
        script = re.sub(r"(?<![\w.])/(data|cluster|first|built)\b", rf"{folder}/\1", script)
        return subprocess.run(["sh", "-euc", script], cwd=folder, env=os.environ | environment, capture_output=True, check=False).returncode

    def test_a_cluster_without_an_identity_of_its_own_is_not_founded(self):
        script = objects("cpu", "Job")["retro-cluster-file"]["spec"]["template"]["spec"]["containers"][0]["command"][-1]
        text = objects("cpu", "ConfigMap")["retro-cluster"]["data"]["cluster.json"]
        placeholder = json.loads(text)["store_id"]
        with tempfile.TemporaryDirectory() as folder:
            for name in ("first", "cluster"):
                os.mkdir(os.path.join(folder, name))
            for store_id, founded in ((placeholder, False), ("ab" * 16, True), ("cd" * 16, True)):
                with open(os.path.join(folder, "first", "cluster.json"), "w", encoding="utf-8") as f:
                    f.write(text.replace(placeholder, store_id))
                check = subprocess.run([os.path.join(BIN, "retro-shard"), "--check-config", f"--cluster-file={f.name}", "--shard=0",
                                        "--replica=retro-shard-0-0", f"--data={folder}/data"], capture_output=True, text=True, check=False)
                self.assertEqual(check.returncode == 0, founded, check.stderr)
                self.assertEqual(self.run_script(script, folder) == 0, founded, store_id)
            self.assertEqual(os.listdir(os.path.join(folder, "cluster")), ["cluster.json"])
            with open(os.path.join(folder, "cluster", "cluster.json"), encoding="utf-8") as f:
                self.assertEqual(json.load(f)["store_id"], "ab" * 16)  # once and never again

    def test_a_built_store_is_taken_before_the_first_write_alone(self):
        containers = objects("prebuilt", "StatefulSet")["retro-shard-0"]["spec"]["template"]["spec"]["initContainers"]
        script = containers[0]["command"][-1]
        for replica, shard, epochs, taken in (("r-0", "0", (1, 1), True), ("r-0", "1", (7, 1), True), ("r-0", "0", (2, 1), False),
                                              ("r-0", "1", (1, 11), False), ("r-1", "0", (1, 1), False)):
            for indent in (None, 2):
                with tempfile.TemporaryDirectory() as folder:
                    os.makedirs(os.path.join(folder, "built", shard, "store"))
                    for name in ("data", "cluster"):
                        os.mkdir(os.path.join(folder, name))
                    self.assertNotEqual(self.run_script(script, folder, REPLICA="r-0", SHARD=shard), 0)  # there is no cluster file yet
                    with open(os.path.join(folder, "cluster", "cluster.json"), "w", encoding="utf-8") as f:
                        json.dump({"shards": [{"epoch": epoch, "replicas": [{"name": "r-0"}]} for epoch in epochs]}, f, indent=indent)
                    self.assertEqual(self.run_script(script, folder, REPLICA=replica, SHARD=shard), 0)
                    self.assertEqual(os.path.exists(os.path.join(folder, "data", "store", "store")), taken, (replica, shard, epochs))

    def test_generators_on_gpus_can_be_changed_without_a_spare_one(self):
        generator = objects("cuda", "Deployment")["retro-generator"]["spec"]
        self.assertEqual(generator["strategy"]["rollingUpdate"], {"maxUnavailable": 1, "maxSurge": 0})
        scaler = objects("cuda", "HorizontalPodAutoscaler")["retro-generator"]["spec"]
        self.assertEqual(scaler["maxReplicas"], scaler["minReplicas"])

    def test_clients_find_new_pods_sooner_than_an_autoscaler_asks_for_more(self):
        for name in ("retro-router", "retro-generator"):
            arguments = objects("cpu", "Deployment")[name]["spec"]["template"]["spec"]["containers"][0]["args"]
            (age_ms,) = [int(a.split("=")[1]) for a in arguments if a.startswith("--connection-age-ms-max=")]
            (policy,) = objects("cpu", "HorizontalPodAutoscaler")[name]["spec"]["behavior"]["scaleUp"]["policies"]
            self.assertLess(age_ms / 1000, policy["periodSeconds"])

    def test_shards_are_not_changed_by_an_apply_and_the_runbook_says_how(self):
        for name, shard in objects("cpu", "StatefulSet").items():
            self.assertEqual(shard["spec"]["updateStrategy"], {"type": "OnDelete"}, name)
        upgrade = runbook("Upgrade")
        for step in ("kubectl -n retro delete pod", "retro admin promote", "kubectl drain"):
            self.assertIn(step, upgrade)

    def test_no_autoscaler_of_nodes_takes_a_primary_away(self):
        for name, shard in objects("cpu", "StatefulSet").items():
            self.assertEqual(shard["spec"]["template"]["metadata"]["annotations"],
                             {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false", "karpenter.sh/do-not-disrupt": "true"}, name)

    def test_pods_of_a_kind_are_spread_over_zones_and_nodes(self):
        spread = [(path, pod) for path, pod in pods() if "topologySpreadConstraints" in pod["spec"]]
        self.assertEqual({pod["metadata"]["labels"]["app"] for _, pod in spread}, {"retro-router", "retro-shard", "retro-generator", "retro-proxy"})
        for path, pod in spread:
            has = {constraint["topologyKey"]: constraint["whenUnsatisfiable"] for constraint in pod["spec"]["topologySpreadConstraints"]}
            of_nodes = "DoNotSchedule" if pod["metadata"]["labels"]["app"] == "retro-shard" else "ScheduleAnyway"
            self.assertEqual(has, {"topology.kubernetes.io/zone": "ScheduleAnyway", "kubernetes.io/hostname": of_nodes}, path)

    def test_as_many_threads_compute_as_cores_are_requested(self):
        seen = 0
        for path, pod in workloads():
            for container in pod["containers"]:
                command = list(itertools.takewhile(re.compile("[a-z]+$").match, container.get("args", [])))
                if "args" in container and "--threads" in flags_of(program_of(container["image"]), *command):
                    self.assertIn(f"--threads={container['resources']['requests']['cpu']}", container["args"], path)
                    seen += 1
        self.assertGreater(seen, 6)

    def test_a_pod_changes_with_its_own_images_tag_alone(self):
        for path, pod in workloads():
            self.assertEqual(len({container["image"] for container in pod.get("initContainers", []) + pod["containers"]}), 1, path)

    def test_what_names_images_and_the_namespace_is_told(self):
        others = {folder for folder in OVERLAYS if "newTag" in read("k8s", folder, "kustomization.yaml")}
        self.assertEqual(others, {folder for folder in OVERLAYS if "namespace:" in read("k8s", folder, "kustomization.yaml")})
        images = re.search(r"Images(.*?)# +Cluster", read("k8s", "base", "kustomization.yaml"), re.S).group(1)
        self.assertEqual(set(re.findall(r"\.\./([a-z-]+)", images)), others)
        self.assertLessEqual(others, set(re.findall("`([a-z-]+)`", runbook("Upgrade"))))

    def test_the_runbook_changes_the_cluster_file_as_it_should(self):
        """Its own lines, in a folder in place of the pod's volume."""
        text = re.search("```sh\n(.*?)```", runbook("Add or remove a replica"), re.S).group(1)
        add, remove = re.findall("^change=.*$", text, re.M)
        self.assertRegex(read("Dockerfile"), r"AS retro-shard\n(.*\n){2}.* jq ")
        apply = text.split(remove)[1].replace("kubectl -n retro exec retro-shard-0-0 -- \\\n", "")
        with tempfile.TemporaryDirectory() as folder:
            os.mkdir(os.path.join(folder, "cluster"))
            file = os.path.join(folder, "cluster", "cluster.json")
            first = self.cluster_file()
            first["store_id"] = "ab" * 16
            first["shards"][0] |= {"epoch": 5, "position": [5, 0], "in_sync": ["retro-shard-0-0", "retro-shard-0-2"]}
            with open(file, "w", encoding="utf-8") as f:
                json.dump(first, f)
            self.assertEqual(self.run_script(add + apply, folder), 0)
            self.assertEqual(self.check_replica(file, folder), 0)
            self.assertEqual(self.run_script(remove + apply, folder), 0)
            self.assertNotEqual(self.check_replica(file, folder), 0)
            with open(file, encoding="utf-8") as f:
                last = json.load(f)
        first["version"] += 2
        first["shards"][0] |= {"epoch": 6, "in_sync": ["retro-shard-0-0"]}
        self.assertEqual(last, first)

    def check_replica(self, file, folder):
        return subprocess.run([os.path.join(BIN, "retro-shard"), "--check-config", f"--cluster-file={file}", "--shard=0", "--replica=retro-shard-0-2",
                               f"--data={folder}/data"], capture_output=True, check=False).returncode

    def test_services_are_probed_and_drained(self):
        for path, pod in workloads():
            if "restartPolicy" in pod:  # a job's
                continue
            for container in pod["containers"]:
                if program_of(container["image"]) not in SERVICES:
                    continue
                self.assertIn("service", container["readinessProbe"]["grpc"], path)  # more than being alive
                ports = {port["name"]: port["containerPort"] for port in container["ports"]}
                for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                    self.assertEqual(container[probe]["grpc"]["port"], ports["health"], path)
                drain_s = int(next(a for a in container["args"] if a.startswith("--drain-ms-max")).split("=")[1]) / 1000
                pre_stop_s = int(container["lifecycle"]["preStop"]["exec"]["command"][-1])
                self.assertGreater(pod["terminationGracePeriodSeconds"], drain_s + pre_stop_s, path)

    def test_jobs_give_way_to_those_of_the_next_version(self):
        for path, document in manifests():
            if document["kind"] == "Job" and document["metadata"]["name"] != "retro-build":
                self.assertLessEqual(document["spec"]["ttlSecondsAfterFinished"], 600, path)

    def test_a_build_outlasts_its_nodes_and_is_seen_after_a_weekend(self):
        build = objects("build", "Job")["retro-build"]["spec"]
        self.assertGreater(build["ttlSecondsAfterFinished"], 3 * 86400)
        self.assertEqual(build["template"]["spec"]["restartPolicy"], "Never")  # what the policy asks for
        self.assertEqual(build["podFailurePolicy"]["rules"], [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}])
        self.assertIn("kubectl -n retro delete job retro-build", read("k8s", "build", "job.yaml"))

    def test_nobody_is_reached_but_by_those_who_have_a_reason(self):
        (denied,) = objects("cpu", "NetworkPolicy")["retro-deny"]["spec"]["podSelector"]["matchExpressions"]
        self.assertEqual({pod["metadata"]["labels"]["app"] for _, pod in pods()}, set(denied["values"]))

    def test_a_backup_is_made_every_day_and_is_let_in_by_the_router(self):
        spec = objects("backup", "CronJob")["retro-backup"]["spec"]
        job = spec["jobTemplate"]["spec"]
        self.assertRegex(spec["schedule"], r"^\d+ \d+ \* \* \*$")
        self.assertEqual((spec["concurrencyPolicy"], job["backoffLimit"]), ("Forbid", 1))
        self.assertLess(spec["startingDeadlineSeconds"] + job["activeDeadlineSeconds"], 86400)  # the next one is never left out
        router = objects("cpu", "NetworkPolicy")["retro-router"]["spec"]["ingress"][0]
        self.assertTrue(any(peer["podSelector"]["matchLabels"].items() <= job["template"]["metadata"]["labels"].items() for peer in router["from"]))
        own = objects("backup", "NetworkPolicy")["retro-backup"]["spec"]["egress"][0]
        self.assertEqual((own["to"], own["ports"]), ([{"podSelector": {"matchLabels": {"app": "retro-router"}}}], router["ports"]))

    def test_what_is_mounted_is_there_or_the_head_says_how_to_make_it(self):
        head = heads("base", "backup", "proxy")
        claims = {document["metadata"]["name"] for _, document in manifests() if document["kind"] == "PersistentVolumeClaim"}
        for path, _, (kind, name) in volumes():
            if kind == "claim":
                self.assertIn(name, claims, path)
            else:
                self.assertIn(f"create secret generic {name}", head, path)
        for path, pod in workloads():
            for container in pod["containers"]:
                for flag, file in paths_in(container.get("args", [])).items():
                    if file.startswith("/opt/retro/"):  # the image's own
                        continue
                    self.assertTrue(any(file.startswith(mount["mountPath"] + "/") or file == mount["mountPath"]
                                        for mount in container["volumeMounts"]), f"{path}: {flag}={file}")
                    if file.startswith(("/tls/", "/keys/", "/own-key/")):
                        self.assertIn(f"--from-file={os.path.basename(file)}=", head, path)

    def test_rules_are_those_of_prometheus(self):
        rule = objects("cpu", "PrometheusRule")["retro"]
        self.assertEqual(rule["spec"]["groups"], yaml.safe_load(read("prometheus", "rules.yml"))["groups"])


class Flags(unittest.TestCase):
    def check(self, where, program, arguments):
        command = list(itertools.takewhile(re.compile("[a-z]+$").match, arguments))
        known = flags_of(program, *command)
        for argument in [a for a in arguments if a.startswith("-")]:
            flag = argument.split("=")[0]
            self.assertIn(flag, known, f"{where}: {program} has no {flag}")

    def test_of_kubernetes(self):
        for path, pod in workloads():
            for container in pod["containers"]:
                if "args" in container:
                    self.check(path, program_of(container["image"]), container["args"])

    def test_of_compose(self):
        for names in COMPOSE_FILES:
            for name, service in yaml.safe_load(read(*names))["services"].items():
                if "command" in service:
                    self.check(f"{names[-1]}, {name}", program_of(service["image"]), service["command"])
                self.assertTrue(service["read_only"], name)
                self.assertEqual(service["cap_drop"], ["ALL"], name)

    def test_the_images_take_what_is_built(self):
        built = re.search(r"cmake --build .* --target (.*) -- ", read("Dockerfile")).group(1).split()
        taken = re.search(r"^for program in (.*); do", read("docker", "collect.sh"), re.M).group(1).split()
        self.assertEqual(sorted(built), sorted(taken))

    def test_a_variable_names_no_stage(self):
        # podman 4.3 looks for an image of that name.
        stages = re.findall(r"^FROM \S+ AS (\S+)", read("Dockerfile"), re.M)
        defaults = re.findall(r"^ARG \w+=(\S+)", read("Dockerfile"), re.M)
        self.assertIn("compiled", stages)
        self.assertTrue(defaults)
        self.assertFalse(set(defaults) & set(stages))

    def test_what_programs_load_is_built_with_them(self):
        loaded = {f"bin/{file}" for file in re.findall(r'"\$bin/([\w.]+)"', read("docker", "collect.sh"))}
        self.assertEqual(len(loaded), 1)
        for script in ("Dockerfile", os.path.join("local", "up.sh")):
            targets = re.search(r"cmake --build .* --target((?: [a-z][a-z-]*)+)", read(script)).group(1).split()
            made = subprocess.run(["ninja", "-C", os.path.dirname(BIN), "-t", "inputs", *targets], capture_output=True, text=True, check=True).stdout.split()
            self.assertEqual(loaded & set(made), loaded, script)

    def test_no_image_for_cuda_is_made_without_cuda(self):
        programs = re.search(r"^for program in (.*); do", read("docker", "collect.sh"), re.M).group(1).split()
        with tempfile.TemporaryDirectory() as folder:
            for program in programs:
                shutil.copy("/bin/true", os.path.join(folder, program))
            run = subprocess.run(["bash", os.path.join(DEPLOY, "docker", "collect.sh"), folder, os.path.join(folder, "deps"),
                                  os.path.join(folder, "out"), "cuda"], capture_output=True, text=True, check=False)
        self.assertNotEqual(run.returncode, 0)
        self.assertIn("libtorch_cuda.so", run.stdout + run.stderr)

    def test_of_the_images(self):
        for target, words in re.findall(r"FROM \S+ AS (retro\S*)\n(.*?)(?=\nFROM |\Z)", read("Dockerfile"), re.S):
            entry = re.search(r"ENTRYPOINT (\[.*?\])", words, re.S).group(1).replace("\\\n", "")
            command = re.search(r"CMD (\[.*?\])", words)
            program, *arguments = json.loads(entry) + (json.loads(command.group(1)) if command else [])
            variables = re.findall(r"\b(RETRO_\w+)=", words)
            if os.path.exists(os.path.join(BIN, program)):
                self.check(target, program, arguments)
                text = subprocess.run([os.path.join(BIN, program), "--help"], capture_output=True, text=True, check=True).stdout
                self.assertLessEqual(set(variables), set(re.findall(r"\(Env:(\w+)\)", text)), target)
            if program in SERVICES:  # what stands there could not be said otherwise: a flag is given once
                self.assertEqual(json.loads(entry), [program])
                self.assertIn(f"{program.upper().replace('-', '_')}_LOG_FORMAT", variables)


class Compose(unittest.TestCase):
    def services(self):
        for names in COMPOSE_FILES:
            document = yaml.safe_load(read(*names))
            for name, service in document["services"].items():
                yield f"{names[-1]}, {name}", name, document, service

    def test_what_flags_name_is_mounted(self):
        for where, _, document, service in self.services():
            mounts = {volume.split(":")[1]: volume.split(":")[0] for volume in service["volumes"]}
            for flag, file in paths_in(service.get("command", [])).items():
                self.assertTrue(any(file == mount or file.startswith(mount + "/") for mount in mounts), f"{where}: {flag}={file}")
            for source in mounts.values():
                self.assertTrue(source.startswith(".") or source in document["volumes"], f"{where}: {source}")

    def test_what_is_mounted_is_there_or_is_made_by_prepare(self):
        made = os.path.join(DEPLOY, "compose", "run") + os.sep
        for names in COMPOSE_FILES:
            folder = os.path.dirname(os.path.join(DEPLOY, *names))
            for name, service in yaml.safe_load(read(*names))["services"].items():
                for source in (volume.split(":")[0] for volume in service["volumes"] if volume.startswith(".")):
                    path = os.path.normpath(os.path.join(folder, source))
                    self.assertTrue(path.startswith(made) or os.path.isfile(path), f"{names[-1]}, {name}: {source}")

    def test_generations_may_end_before_a_service_does(self):
        for where, name, _, service in self.services():
            drain_ms = dict(a.split("=", 1) for a in service.get("command", []) if "=" in a).get("--drain-ms-max", "10000")
            grace_s = int(service["stop_grace_period"].removesuffix("s"))
            self.assertGreater(grace_s, int(drain_ms) / 1000, where)
            if name in ("generator", "proxy"):
                self.assertGreater(grace_s, 150, where)
            self.assertEqual(service.get("stop_signal"), "SIGUSR1" if name == "proxy" else None, where)  # HAProxy's soft stop

    def test_prometheus_asks_every_service_and_nobody_else(self):
        for where, name, document, service in self.services():
            if name != "prometheus":
                continue
            mounted = next(volume.split(":")[0] for volume in service["volumes"] if volume.split(":")[1].endswith("prometheus.yml"))
            jobs = yaml.safe_load(read("compose", os.path.basename(mounted)))["scrape_configs"]
            asked = {target for job in jobs for group in job["static_configs"] for target in group["targets"]}
            serve = {f"{each}:9090" for each, what in document["services"].items()
                     if each == "proxy" or any("--metrics-listen" in argument for argument in what.get("command", []))}
            self.assertEqual(asked, serve, where)

    def test_every_service_is_given_its_own_secrets_and_no_others(self):
        given = {}
        for line in re.findall(r"^.*\bgive \S+ .*\.pem.*$", read("compose", "prepare.sh"), re.M):
            loop = re.match(r"for \w+ in (.*?);", line)
            name, files = re.search(r"give (\S+) ([^;]*)", line).groups()
            for each in loop.group(1).split() if loop else [name]:
                given[each] = {file.split("=")[0] for file in files.split()}
        self.assertEqual(len(given), 8)
        taken = set()
        for where, name, _, service in self.services():
            folders = [volume.split("/")[-2].split(":")[0] for volume in service["volumes"] if volume.endswith(":/secrets:ro")]
            text = read("compose", "haproxy.cfg") if name == "proxy" else " ".join(service.get("command", []))
            needed = set(re.findall(r"/secrets/([\w.-]+)", text))
            needed |= {f"{file}.key" for file in needed if name == "proxy" and file == "proxy.pem"}  # HAProxy looks for it there
            self.assertEqual([needed] if needed else [], [given[folder] for folder in folders], where)
            if needed:
                kind = re.sub("-.*", "", name)
                self.assertEqual({f"{kind}.pem"}, {file for file in needed if file.endswith(".pem") and file != "ca.pem"}, where)
            for folder in folders:
                self.assertNotIn((where.split(",")[0], folder), taken, where)
                taken.add((where.split(",")[0], folder))

    def test_the_proxy_refuses_as_the_services_do(self):
        refusals = re.findall(r'hdr grpc-status (\d+) hdr grpc-message "(.*?)" hdr grpc-status-details-bin (\S+)', read("compose", "haproxy.cfg"))
        self.assertEqual(len(refusals), 2)
        for (code, message, details), words in zip(refusals, (("QUEUE_FULL", "google.rpc.RetryInfo"), ("UNAUTHENTICATED",))):
            status = base64.b64decode(details + "=" * (-len(details) % 4))
            self.assertEqual(status[:2], bytes([1 << 3, int(code)]))
            for word in (message, "google.rpc.ErrorInfo", *words):
                self.assertIn(word.encode(), status)

    def test_the_proxy_takes_as_many_connections_as_it_has_files_for(self):
        config = read("compose", "haproxy.cfg")
        (most,) = re.findall(r"^    maxconn (\d+)", config, re.M)
        ports = [int(number) for number in re.findall(r"^    bind .* maxconn (\d+)$", config, re.M)]
        self.assertEqual(len(ports), 3)
        self.assertLessEqual(sum(ports), int(most))
        for number in re.findall(r"fe_conn gt (\d+)", config):  # closed, before they would wait
            self.assertLess(int(number), min(ports[:2]))

    def test_both_ends_of_a_snapshot_share_its_folder(self):
        pods = {path: container for path, pod in workloads() for container in pod["containers"] if "command" not in container}
        all_services = [(where, service["image"], service.get("command", [])) for where, _, _, service in self.services()]
        all_services += [(path, container["image"], container.get("args", [])) for path, container in pods.items()]
        seen = 0
        for where, image, arguments in all_services:
            if program_of(image) in ("retro-shard", "retro-retriever"):
                self.assertIn("--snapshot-dir=/snapshots", arguments, where)
                seen += 1
        self.assertGreater(seen, 7)


class Secrets(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = os.path.join(folder.name, "secrets")

    def run_script(self, *names):
        return subprocess.run(["bash", os.path.join(DEPLOY, "secrets.sh"), self.folder, *names], capture_output=True, text=True, check=False)

    def make(self):
        """What it says beside."""
        run = self.run_script("router=router", "shard=shard-0", "shard=shard-1", "router=10.0.0.1")
        self.assertEqual(run.returncode, 0, run.stderr)
        return run.stderr

    def files(self):
        content = {}
        for name in os.listdir(self.folder):
            with open(os.path.join(self.folder, name), encoding="ascii") as f:
                content[name] = f.read()
        return content

    def test_what_is_there_stays_and_an_edited_key_file_above_all(self):
        self.make()
        first = self.files()
        hashes = {entry["name"]: entry["sha256"] for entry in json.loads(first["api-keys.json"])["keys"]}
        self.assertEqual(hashes, {name: hashlib.sha256(first[f"{name}.apikey"].encode()).hexdigest()
                                  for name in ("admin", "write", "read", "shards", "generator")})
        edited = json.loads(first["api-keys.json"])
        edited["keys"] = [entry for entry in edited["keys"] if entry["name"] != "read"] + [{"name": "user", "role": "read", "sha256": "0" * 64}]
        with open(os.path.join(self.folder, "api-keys.json"), "w", encoding="ascii") as f:
            json.dump(edited, f)
        os.remove(os.path.join(self.folder, "router.pem"))
        os.remove(os.path.join(self.folder, "write.apikey"))
        said = self.make()
        second = self.files()
        self.assertEqual(json.loads(second["api-keys.json"]), edited)
        self.assertEqual({name for name in second if second[name] != first[name]}, {"api-keys.json", "router.pem", "router.key", "write.apikey"})
        self.assertEqual(re.findall(r'"name": "(\w+)"', said), ["write"])  # whose entry is to be put there
        self.assertIn(hashlib.sha256(second["write.apikey"].encode()).hexdigest(), said)
        self.assertEqual(self.make(), "")

    def verify(self, certificate, *how):
        run = subprocess.run(["openssl", "verify", "-CAfile", "ca.pem", *how, certificate], cwd=self.folder, capture_output=True, check=False)
        return run.returncode == 0

    def test_a_certificate_is_good_for_its_own_service_alone(self):
        self.make()
        names = {"router": ("router", "10.0.0.1"), "shard": ("shard-0", "shard-1"), "client": ()}
        for name in names:
            self.assertTrue(self.verify(f"{name}.pem", "-purpose", "sslclient"), name)  # services are clients of one another
            for service, called in names.items():
                for each in called:
                    flag = "-verify_ip" if each[0].isdigit() else "-verify_hostname"
                    self.assertEqual(self.verify(f"{name}.pem", "-purpose", "sslserver", flag, each), name == service, (name, each))
        self.assertFalse(self.verify("client.pem", "-purpose", "sslserver"))

    def test_nothing_is_left_half_made(self):
        self.make()
        first = self.files()
        os.rename(os.path.join(self.folder, "ca.key"), os.path.join(self.folder, "elsewhere"))
        for name in ("router.pem", "write.apikey"):
            with open(os.path.join(self.folder, name), "w", encoding="ascii"):
                pass  # as a disk that was full has left it
        run = self.run_script("router=router")
        self.assertNotEqual(run.returncode, 0)
        self.assertIn("ca.key is missing", run.stderr)
        self.assertEqual(self.files()["router.key"], first["router.key"])
        os.rename(os.path.join(self.folder, "elsewhere"), os.path.join(self.folder, "ca.key"))
        self.assertIn('"write"', self.make())
        self.assertTrue(self.verify("router.pem"))
        self.assertEqual(len(self.files()["write.apikey"]), 64)
        self.assertEqual(set(self.files()), set(first))

    def test_the_proxy_takes_them(self):
        """As prepare.sh gives them to it."""
        self.run_script("proxy=localhost")
        os.rename(os.path.join(self.folder, "proxy.key"), os.path.join(self.folder, "proxy.pem.key"))
        with open(os.path.join(self.folder, "keys.sha256"), "w", encoding="ascii") as f:
            f.write("0" * 64 + "\n")
        config = os.path.join(self.folder, "haproxy.cfg")
        with open(config, "w", encoding="utf-8") as f:
            f.write(read("compose", "haproxy.cfg").replace("/secrets/", self.folder + "/"))
        run = subprocess.run(["haproxy", "-c", "-f", config], env=os.environ | {"ROUTER": "127.0.0.1", "GENERATOR": "127.0.0.1"},
                             capture_output=True, text=True, check=False)
        self.assertEqual(run.returncode, 0, run.stdout + run.stderr)

    def test_names_are_of_services(self):
        for wrong in ("router", "=router", "router="):
            run = self.run_script(wrong)
            self.assertEqual(run.returncode, 2, wrong)
            self.assertIn("SERVICE=NAME", run.stdout)
            self.assertFalse(os.path.exists(self.folder))

    def test_neither_the_repository_nor_an_image_takes_them(self):
        for name in ("secrets/ca.key", "secrets/api-keys.json", "elsewhere/read.apikey", "elsewhere/server.key", "deploy/compose/run/secrets/ca.pem"):
            self.assertEqual(subprocess.run(["git", "check-ignore", "-q", name], cwd=ROOT, check=False).returncode, 0, name)
        with open(os.path.join(ROOT, ".dockerignore"), encoding="utf-8") as f:
            self.assertLessEqual({"secrets", "deploy/compose/run", "**/*.apikey", "**/*.key"}, set(f.read().split()))


class Clients(unittest.TestCase):
    def test_the_service_config_tries_again_all_that_changes_nothing_and_nothing_else(self):
        methods = set()
        for service in ("retriever", "generator"):
            with open(os.path.join(ROOT, "proto", "retro", service, "v1", f"{service}.proto"), encoding="utf-8") as f:
                for method in re.findall(r"^  rpc (\w+)\(", f.read(), re.M):
                    if not method.startswith(("Ingest", "Upsert", "Create", "Delete")):
                        methods.add((f"retro.{service}.v1.{service.capitalize()}Service", method))
        (config,) = json.loads(read("service-config.json"))["methodConfig"]
        self.assertEqual({(name["service"], name["method"]) for name in config["name"]}, methods)
        self.assertEqual(config["retryPolicy"]["retryableStatusCodes"], ["UNAVAILABLE", "CANCELLED"])


class Watching(unittest.TestCase):
    def test_rules_and_dashboard_speak_of_metrics_that_there_are(self):
        with open(os.path.join(ROOT, "docs", "metrics.md"), encoding="utf-8") as f:
            documented = set(re.findall(r"^\| `(retro_[a-z0-9_]+)` \|", f.read(), re.M))
        expressions = [rule["expr"] for rule in self.rules()]
        dashboard = json.loads(read("grafana", "retro.json"))
        expressions += [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
        self.assertGreater(len(expressions), 20)
        for expression in expressions:
            self.assertLessEqual(metrics_in(expression), documented, expression)

    def test_every_alert_has_a_runbook(self):
        with open(os.path.join(ROOT, "docs", "runbooks.md"), encoding="utf-8") as f:
            runbooks = f.read()
        for rule in self.rules():
            if "alert" in rule:
                self.assertIn(f"`{rule['alert']}`", runbooks)

    def test_every_alert_is_of_one_namespace(self):
        for rule in self.rules():
            self.assertEqual(re.findall(r"\bby \((?!namespace\b)", rule["expr"]), [], rule)

    def rules(self):
        """All that there are."""
        for text in (read("prometheus", "rules.yml"), json.dumps(objects("backup", "PrometheusRule")["retro-backup"]["spec"])):
            for group in yaml.safe_load(text)["groups"]:
                yield from group["rules"]


# An hour of a healthy deployment as Prometheus sees it, a value a minute; None in a case: there is no such series.
STEADY, FAST = "+0x60", "0+600x60"  # appended to a value; ten a second
ROUTER, GENERATOR, SHARD = ('app="retro-router",job="retro",instance="router:9090"', 'app="retro-generator",job="retro",instance="generator:9090"',
                            'app="retro-shard",job="retro",instance="shard-0a:9090"')
OK_SEARCHES = f'retro_requests_total{{{ROUTER},method="Search",code="OK"}}'
LATE_SEARCHES = f'retro_request_seconds_bucket{{{ROUTER},method="Search",le="+Inf"}}'
LATE_TOKENS = f'retro_time_to_first_token_seconds_bucket{{{GENERATOR},le="+Inf"}}'
USABLE = {name: f'retro_replica_usable{{{ROUTER},shard="0",replica="{name}"}}' for name in ("0a", "0b")}
IN_SYNC = {name: f'retro_replica_in_sync{{{ROUTER},shard="0",replica="{name}"}}' for name in ("0a", "0b")}
PRIMARY = f'retro_shard_primary{{{SHARD},shard="0"}}'
NEWEST = {name: f'retro_snapshot_newest_timestamp_seconds{{instance="shard-{name}:9090",shard="0"}}' for name in ("0a", "0b")}
PROXY = 'app="retro-proxy",job="retro",instance="proxy:9090"'
DENIED = f'haproxy_frontend_denied_connections_total{{{PROXY},proxy="retriever"}}'
REFUSED, REACHED = f'haproxy_backend_http_requests_total{{{PROXY},proxy="refused"}}', f'haproxy_backend_active_servers{{{PROXY},proxy="router"}}'
HEALTHY = {
    f"up{{{ROUTER}}}": "1" + STEADY, f"up{{{GENERATOR}}}": "1" + STEADY, f"up{{{SHARD}}}": "1" + STEADY,
    OK_SEARCHES: FAST, f'retro_request_seconds_bucket{{{ROUTER},method="Search",le="0.5"}}': FAST, LATE_SEARCHES: FAST,
    f'retro_time_to_first_token_seconds_bucket{{{GENERATOR},le="2.5"}}': FAST, LATE_TOKENS: FAST,
    f"retro_search_partial_total{{{ROUTER}}}": "0" + STEADY, f"retro_chunks_total{{{GENERATOR}}}": FAST,
    USABLE["0a"]: "1" + STEADY, USABLE["0b"]: "1" + STEADY, IN_SYNC["0a"]: "1" + STEADY, IN_SYNC["0b"]: "1" + STEADY,
    f'retro_shard_epoch{{{ROUTER},shard="0"}}': "1" + STEADY, PRIMARY: "1" + STEADY,
    'retro_shard_primary{instance="shard-0b:9090",shard="0"}': "0" + STEADY,
    f'retro_store_read_only{{{SHARD},shard="0"}}': "0" + STEADY, f'retro_store_disk_bytes{{{SHARD},shard="0"}}': "100" + STEADY,
    f'retro_store_disk_free_bytes{{{SHARD},shard="0"}}': "100" + STEADY, f'retro_index_recall{{{SHARD},collection=""}}': "0.95" + STEADY,
    f"retro_certificate_expiry_seconds{{{ROUTER}}}": "10000000" + STEADY, f'retro_index_segments{{{SHARD},collection=""}}': "12" + STEADY,
    NEWEST["0a"]: "-80000" + STEADY, NEWEST["0b"]: "-80000" + STEADY,  # of a day before
    DENIED: "0" + STEADY, REFUSED: "0" + STEADY, REACHED: "1" + STEADY,
    f"process_open_fds{{{SHARD}}}": "700" + STEADY, f"process_max_fds{{{SHARD}}}": "1000" + STEADY,
}
# What differs, and the alerts that it raises.
CASES = (
    ({}, []),
    ({f"up{{{SHARD}}}": "1+0x40 0+0x20"}, ["RetroDown"]),
    ({f"up{{{SHARD}}}": "_x30 0+0x30"}, []),  # it starts
    ({f"up{{{SHARD}}}": "0" + STEADY}, ["RetroDoesNotStart"]),
    ({f"up{{{ROUTER}}}": "1+0x40 0+0x20"}, ["RetroDown", "RetroNoRouter"]),
    ({f"up{{{ROUTER}}}": None}, ["RetroNoRouter"]),
    ({f"up{{{GENERATOR}}}": None}, ["RetroNoGenerator"]),
    ({f"up{{{each}}}": None for each in (ROUTER, GENERATOR, SHARD)}, ["RetroNoRouter", "RetroNoGenerator"]),
    ({'up{app="retro-shard",job="retro",namespace="other"}': "1" + STEADY}, ["RetroNoRouter", "RetroNoGenerator"]),  # of that one alone
    ({'up{app="retro-router",job="retro",namespace="other"}': "1+0x20"}, ["RetroNoRouter", "RetroNoGenerator"]),  # it is gone altogether
    ({f"up{{{SHARD}}}": None, USABLE["0a"]: "0" + STEADY}, []),  # one replica of two
    ({USABLE["0a"]: "0" + STEADY, USABLE["0b"]: "0" + STEADY}, ["RetroShardGone"]),
    ({USABLE["0a"]: "0" + STEADY, IN_SYNC["0b"]: "0" + STEADY}, ["RetroReplicaOutOfSync", "RetroShardGone"]),
    ({PRIMARY: "0" + STEADY}, ["RetroNoPrimary"]),
    ({PRIMARY: None}, ["RetroNoPrimary"]),
    ({PRIMARY: None, 'retro_shard_primary{instance="shard-0b:9090",shard="0"}': None}, ["RetroNoPrimary"]),
    ({IN_SYNC["0b"]: "0" + STEADY}, ["RetroReplicaOutOfSync"]),
    ({f'retro_requests_total{{{ROUTER},method="Search",code="UNAVAILABLE"}}': "0+12x60"}, ["RetroErrors"]),
    ({f'retro_requests_total{{{ROUTER},method="Search",code="DEADLINE_EXCEEDED"}}': "0+60x60"}, ["RetroDeadlines"]),
    ({OK_SEARCHES: None, f'retro_requests_total{{{ROUTER},method="Search",code="DEADLINE_EXCEEDED"}}': FAST}, ["RetroDeadlines"]),
    ({f'retro_requests_total{{{ROUTER},method="Search",code="RESOURCE_EXHAUSTED"}}': "0+60x60"}, ["RetroOverloaded"]),
    ({LATE_SEARCHES: "0+660x60", f'retro_request_seconds_bucket{{{ROUTER},method="Search",le="2"}}': "0+660x60"}, ["RetroSearchSlow"]),
    ({LATE_TOKENS: "0+660x60", f'retro_time_to_first_token_seconds_bucket{{{GENERATOR},le="10"}}': "0+660x60"}, ["RetroFirstTokenSlow"]),
    ({f"retro_search_partial_total{{{ROUTER}}}": "0+1x60"}, ["RetroPartialSearches"]),
    ({f'retro_degraded_chunks_total{{{GENERATOR},cause="LATE"}}': "0+12x60"}, ["RetroDegradedGenerations"]),
    ({f'retro_store_read_only{{{SHARD},shard="0"}}': "1" + STEADY}, ["RetroReadOnly"]),
    ({f'retro_store_disk_free_bytes{{{SHARD},shard="0"}}': "20" + STEADY}, ["RetroDiskFilling"]),
    ({f"retro_certificate_expiry_seconds{{{ROUTER}}}": "600000" + STEADY}, ["RetroCertificateEnds"]),
    ({f'retro_index_recall{{{SHARD},collection=""}}': "0.8" + STEADY}, ["RetroIndexRecallLow"]),
    ({f'retro_index_segments{{{SHARD},collection=""}}': "41" + STEADY}, ["RetroIndexBehind"]),
    ({NEWEST["0a"]: "-172000+0x20", NEWEST["0b"]: None}, ["RetroSnapshotOld"]),  # there was one: gone, or nobody answers
    ({NEWEST["0a"]: "-172000" + STEADY}, []),  # that replica sees it late
    ({NEWEST["0a"]: None, NEWEST["0b"]: None}, []),  # there was never one
    ({f"process_open_fds{{{SHARD}}}": "900" + STEADY}, ["RetroFilesRunOut"]),
    ({DENIED: FAST, REFUSED: None}, ["RetroProxyRefuses"]),
    ({REFUSED: FAST, DENIED: None}, ["RetroProxyRefuses"]),
    ({REACHED: "1+0x40 0+0x20"}, ["RetroProxyReachesNobody"]),
    ({DENIED: None, REFUSED: None, REACHED: None}, []),  # no proxy
)


# The same of the backup's rule: a value an hour, looked at on the third day.
POSITION, SNAPSHOT = 'retro_store_position{instance="shard-0a:9090",shard="0"}', 'retro_snapshot_newest_timestamp_seconds{instance="shard-0b:9090",shard="0"}'
BACKUP_CASES = (
    ({POSITION: "7+0x60", SNAPSHOT: None}, ["RetroNoSnapshot"]),
    ({POSITION: "7+0x30 _ 7+0x30", SNAPSHOT: None}, ["RetroNoSnapshot"]),  # it was away for a moment
    ({POSITION: "_x30 7+0x30", SNAPSHOT: None}, []),  # not there for two days yet
    ({POSITION: "7+0x60", SNAPSHOT: "_x40 144000+0x20"}, []),
    ({POSITION: "7+0x60", SNAPSHOT: "0+0x5"}, []),  # there was one: RetroSnapshotOld
    ({POSITION: None, SNAPSHOT: None}, []),
)


class Alerts(unittest.TestCase):
    def test_each_fires_when_it_should_and_no_other_does(self):
        self.check(yaml.safe_load(read("prometheus", "rules.yml")), [(HEALTHY | change, alerts) for change, alerts in CASES], "1m", "1h")

    def test_a_backup_that_never_worked_is_told(self):
        self.check(objects("backup", "PrometheusRule")["retro-backup"]["spec"], BACKUP_CASES, "1h", "60h")

    def check(self, rules, cases, interval, eval_time):
        tests = []
        for number, (values_of, alerts) in enumerate(cases):
            series = [{"series": name, "values": values} for name, values in values_of.items() if values is not None]
            firing = [{"labels": f'{{alertname="{alert}"}}', "value": 1} for alert in alerts]
            tests.append({"name": f"{number}: {values_of}", "interval": interval, "input_series": series, "promql_expr_test": [
                {"expr": 'count by (alertname) (ALERTS{alertstate="firing"})', "eval_time": eval_time, "exp_samples": firing}]})
        with tempfile.TemporaryDirectory() as folder:
            for name, document in (("rules.yml", rules), ("test.yml", {"rule_files": ["rules.yml"], "evaluation_interval": interval, "tests": tests})):
                with open(os.path.join(folder, name), "w", encoding="utf-8") as f:
                    yaml.safe_dump(document, f)
            run = subprocess.run([os.path.join(TOOLS, "promtool"), "test", "rules", f.name], capture_output=True, text=True, check=False)
        self.assertEqual(run.returncode, 0, run.stdout + run.stderr)

    def test_there_is_a_case_of_each(self):
        raised = {alert for _, alerts in CASES for alert in alerts}
        self.assertEqual(raised, {rule["alert"] for group in yaml.safe_load(read("prometheus", "rules.yml"))["groups"]
                                  for rule in group["rules"] if "alert" in rule})


if __name__ == "__main__":
    unittest.main(verbosity=2)
