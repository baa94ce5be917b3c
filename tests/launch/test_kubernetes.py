"""Kubernetes: the manifests as they are submitted, and what kubectl is told."""

import re

import pytest
import yaml

GPU = ["gpu", "--name", "run", "--image", "i:1", "--nodes", "2", "--gpus", "8"]
TPU = [
    "tpu",
    "--name",
    "run",
    "--image",
    "i:1",
    "--accelerator",
    "tpu-v5-lite-podslice",
]
TPU += ["--topology", "4x4", "--chips", "4"]
COMMAND = ["python", "train_vqgan.py", '--config.name=it\'s "a" $HOME']


@pytest.fixture
def cluster(stage):
    stage.offers("kubectl", f'[[ "$*" != *apply* ]] || cp "${{@: -1}}" {stage.folder}')
    return stage


def submitted(cluster, flags):
    """The JobSet that kubectl gets: its specification, its job's, and the pods'."""
    ended = cluster.run("kubernetes.sh", *flags, "--", *COMMAND)
    assert ended.returncode == 0, ended.stderr
    text = (cluster.folder / "run.yaml").read_text()
    assert "${" not in text
    jobset = yaml.safe_load(text)
    job = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]
    return jobset, job, job["template"]["spec"]


@pytest.fixture(params=[GPU, TPU], ids=["gpu", "tpu"])
def both(request, cluster):
    return submitted(cluster, request.param)


@pytest.mark.parametrize(("flags", "pods"), [(GPU, 2), (TPU, 4)], ids=["gpu", "tpu"])
def test_there_is_a_pod_for_every_machine(cluster, flags, pods):
    _, job, _ = submitted(cluster, flags)
    counted = (job["completionMode"], job["parallelism"], job["completions"])
    assert counted == ("Indexed", pods, pods)


def test_the_command_arrives_as_it_was_typed(both):
    *_, pod = both
    assert pod["containers"][0]["command"] == COMMAND


def test_only_a_refusal_is_final(both):
    """Code 2 fails the job by rule, which fails the JobSet; all else restarts it."""
    jobset, job, pod = both
    (rule,) = job["podFailurePolicy"]["rules"]
    name = pod["containers"][0]["name"]
    refusal = {"containerName": name, "operator": "In", "values": [2]}
    assert rule == {"action": "FailJob", "onExitCodes": refusal}
    policy = jobset["spec"]["failurePolicy"]
    (rule,) = policy["rules"]
    reasons = rule["onJobFailureReasons"]
    assert (rule["action"], reasons) == ("FailJobSet", ["PodFailurePolicy"])
    assert (rule["name"], policy["maxRestarts"]) == ("refused", 100)


def test_no_pod_is_restarted_without_the_others(both):
    _, job, pod = both
    assert (pod["restartPolicy"], job["backoffLimit"]) == ("Never", 0)


def test_a_pod_has_time_to_save(both):
    *_, pod = both
    assert pod["terminationGracePeriodSeconds"] >= 60


def test_gpu_processes_meet_at_the_first_pod(cluster):
    """A pod's host name is JOBSET-JOB-0-INDEX.JOBSET."""
    jobset, _, pod = submitted(cluster, GPU)
    job = jobset["spec"]["replicatedJobs"][0]["name"]
    assert pod["containers"][0]["args"] == [
        f"--coordinator=run-{job}-0-0.run:55527",
        "--processes=2",
        "--process=$(JOB_COMPLETION_INDEX)",
    ]


def test_gpus_and_shared_memory_are_asked_for(cluster):
    *_, pod = submitted(cluster, GPU)
    (container,), (volume,) = pod["containers"], pod["volumes"]
    assert container["resources"]["limits"] == {"nvidia.com/gpu": 8}
    mount = {"name": volume["name"], "mountPath": "/dev/shm"}
    assert container["volumeMounts"] == [mount]
    assert volume["emptyDir"] == {"medium": "Memory"}


def test_tpu_pods_share_one_slice_of_the_topology(cluster):
    jobset, _, pod = submitted(cluster, TPU)
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v5-lite-podslice",
        "cloud.google.com/gke-tpu-topology": "4x4",
    }
    assert pod["containers"][0]["resources"]["limits"] == {"google.com/tpu": 4}
    exclusive = "alpha.jobset.sigs.k8s.io/exclusive-topology"
    assert (
        jobset["metadata"]["annotations"][exclusive] == "cloud.google.com/gke-nodepool"
    )


def test_tpus_have_the_flags_of_a_pods_workers(cluster):
    *_, pod = submitted(cluster, TPU)
    worker = (cluster.repository / "launch/worker.sh").read_text()
    (flags,) = pod["containers"][0]["env"]
    assert flags["value"].split() == re.findall(r"^ (--xla\S+=true)", worker, re.M)


@pytest.mark.parametrize(
    ("arguments", "call"),
    [
        (["delete", "--name", "run"], "kubectl delete jobset run"),
        (
            ["logs", "--name", "run", "--namespace", "n"],
            "kubectl --namespace n logs --follow --selector jobset.sigs.k8s.io/"
            "jobset-name=run\\,batch.kubernetes.io/job-completion-index=0",
        ),
    ],
    ids=["delete", "logs"],
)
def test_what_kubectl_is_told(cluster, arguments, call):
    cluster.run("kubernetes.sh", *arguments)
    assert cluster.calls == [call]


@pytest.mark.parametrize("flags", [GPU, TPU], ids=["gpu", "tpu"])
def test_dry_run_prints_manifest_and_command_and_does_nothing(cluster, flags):
    ended = cluster.run("kubernetes.sh", *flags, "--dry-run", "--", *COMMAND)
    assert yaml.safe_load(ended.stdout)["kind"] == "JobSet"
    assert ended.stderr.startswith("+ kubectl apply --filename ")
    assert cluster.calls == []


@pytest.mark.parametrize(
    ("flags", "missing"),
    [(GPU, "--nodes"), (GPU, "--gpus"), (TPU, "--topology"), (TPU, "--chips")],
)
def test_what_cannot_be_guessed_is_asked_for(cluster, flags, missing):
    at = flags.index(missing)
    ended = cluster.run("kubernetes.sh", *flags[:at], *flags[at + 2 :], "--", *COMMAND)
    assert ended.stderr.startswith(f"error: {missing} is missing")
