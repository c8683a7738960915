"""The image of the tasks: small, without root, without what a task does not need."""

import json

MAX_BYTES = 1_300_000_000


def in_container(docker, image, code):
    done = docker.run("run", "--rm", "--network=host", "--entrypoint=python", image, "-c", code)
    return done.stdout.strip()


def test_it_is_at_most_1_3_gb(docker, images):
    size = int(docker.run("image", "inspect", "--format", "{{.Size}}", images["task"]).stdout)
    print(f"\n{images['task']}: {size / 1e6:.0f} MB")
    assert size <= MAX_BYTES


def test_it_runs_as_nobody_special_and_says_which_commit_it_is(docker, images):
    for image in images.values():
        config = json.loads(docker.run("image", "inspect", "--format", "{{json .Config}}", image).stdout)
        assert config["User"] == "10001:10001"
        assert in_container(docker, image, "import os; print(os.getuid())") == "10001"
    label = "org.opencontainers.image.revision"
    revision = docker.run("image", "inspect", "--format", f'{{{{index .Config.Labels "{label}"}}}}', images["task"])
    assert revision.stdout.strip()
    assert revision.stdout.strip() in images["task"]


def test_it_holds_the_package_and_kfps_executor_without_its_clients(docker, images):
    code = (
        "import importlib.util as u;"
        "print([n for n in ('glintru_model','components','torch','kfp','psycopg','optuna') if not u.find_spec(n)],"
        "[n for n in ('kubernetes','kfp_server_api','docker','pip','pytest','moto','skops') if u.find_spec(n)])"
    )
    assert in_container(docker, images["task"], code) == "[] []"


def test_the_cpu_image_brings_no_cuda(docker, images):
    assert in_container(docker, images["task"], "import torch; print(torch.version.cuda)") == "None"


def test_pips_configuration_is_in_no_image(docker, images):
    for image in images.values():
        found = in_container(
            docker,
            image,
            "import os; print(os.path.getsize('/etc/pip.conf') if os.path.exists('/etc/pip.conf') else 0)",
        )
        assert found == "0"
        history = docker.run("history", "--no-trunc", "--format", "{{.CreatedBy}}", image).stdout
        assert "find-links" not in history
        assert "extra-index" not in history
