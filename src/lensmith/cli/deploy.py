"""`lensmith deploy`."""

from typing import Any

from lensmith import api
from lensmith.cli.options import Output, command_for
from lensmith.cli.output import print_line
from lensmith.config import DeploySettings

NEXT = {
    "nginx": "nginx -t, then as the head of nginx.conf says; or lensmith.conf into /etc/nginx/conf.d/",
    "systemd": "units into /etc/systemd/system/, lensmith.env and jwt-secret into /etc/lensmith/",
    "docker": "docker build -t lensmith {folder}",
    "compose": "docker compose --project-directory {folder} up -d --build --wait",
    "prometheus": "promtool test rules {folder}/prometheus/lensmith-alerts.test.yml",
    "schedule": "units into /etc/systemd/system/, the CronJob to kubectl apply, the workflow into .github/workflows/",
}
"""Next step, by kind of files."""


def deploy(given: dict[str, Any]) -> Output:
    """Write the files of a deployment, to be read, changed and stored with your own.

    nginx: a proxy that asks another replica where one fails. systemd: a hardened unit for each replica.
    docker: an image of the service. compose: all of it on one machine, watched. prometheus: rules and a dashboard.
    schedule: a pipeline at set times, by systemd, Kubernetes or GitHub.

    The service's own settings are those of `lensmith serve` here: LENSMITH_SERVE_... and lensmith.yaml.

    Example: `lensmith deploy compose runs/demo/bundle --wheel dist/lensmith-0.1.0-py3-none-any.whl`
    """
    made = api.deploy(given.pop("kind"), given.pop("bundle", None), **given)
    yield made
    print_line((str(made.folder), "bold"), f": {len(made.files):,} files")
    for name in made.files:
        print_line(f"  {name}")
    print_line(f"Next: {NEXT[made.kind].format(folder=made.folder)}; see docs/deploy.md")


command = command_for(DeploySettings, deploy, optional=("bundle",))
