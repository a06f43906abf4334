"""`lensmith registry`: bundles as versions of named models, and their aliases."""

from pathlib import Path
from typing import Annotated

import typer

from lensmith import api
from lensmith.cli import VERBS
from lensmith.cli.options import Output, group
from lensmith.cli.output import print_line, print_table
from lensmith.registry.references import CHAMPION

Uri = Annotated[
    str | None,
    typer.Option(
        "--tracking-uri",
        help="Where the registry is: sqlite:///FILE, postgresql://…, or the address of an `mlflow server`; by default "
        "LENSMITH_TRACKING_URI, MLFLOW_TRACKING_URI, or runs/mlflow.db.",
    ),
]
_Which = Annotated[str, typer.Argument(metavar="NAME@WHICH", help="Alias or version of a model.")]
_Model = Annotated[str, typer.Argument(metavar="NAME", help="Registered model.")]


def push(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Bundle folder or zip.")],
    name: Annotated[
        str | None, typer.Option(help="Model to make it a version of; the bundle's name by default.")
    ] = None,
    alias: Annotated[str | None, typer.Option(help="Alias for the version, such as champion.")] = None,
    tracking_uri: Uri = None,
) -> Output:
    """Register a bundle as a version of a model.

    The same bundle is not registered twice.

    Example: `lensmith registry push runs/flowers/bundle --name flowers --alias champion`
    """
    pushed = api.Registry(tracking_uri).push(bundle, name, alias=alias)
    yield pushed
    version = pushed.version
    state = "pushed" if pushed.new else "was there already"
    print_line((f"{version.name}@{version.version}", "bold"), f"  {state}{_named(version.aliases)}")
    if pushed.new and not pushed.uploaded:
        print_line("  files: those of the tracked training in MLflow")
    if CHAMPION not in version.aliases:
        print_line(f"Next: lensmith registry alias {version.name}@{version.version} {CHAMPION}")


def list_(tracking_uri: Uri = None) -> Output:
    """List the models, with their aliases."""
    found = api.Registry(tracking_uri).models()
    yield {"models": found}
    if not found:
        print_line("No model is registered yet.")
        return
    rows = [
        (
            model.name,
            len(model.versions),
            ", ".join(f"{alias} {version}" for alias, version in model.aliases.items()) or "–",
            f"{model.versions[0].created:%Y-%m-%d %H:%M}" if model.versions else "–",
        )
        for model in found
    ]
    print_table("", ("model", "versions", "aliases", "last push (UTC)"), rows)


def show(
    name: Annotated[str, typer.Argument(metavar="NAME[@WHICH]", help="Model, or one version of it.")],
    tracking_uri: Uri = None,
) -> Output:
    """Show a model's versions, or one version in detail."""
    if "@" not in name:
        model = api.Registry(tracking_uri).model(name)
        yield model
        rows = [
            (
                int(version.version),
                ", ".join(version.aliases) or "–",
                _percent(version.tags.get("lensmith.accuracy")),
                version.tags.get("lensmith.bundle_version", "–") if version.content else "no bundle",
                f"{version.created:%Y-%m-%d %H:%M}",
            )
            for version in model.versions
        ]
        print_table(model.name, ("version", "aliases", "validation accuracy", "bundle", "pushed (UTC)"), rows)
        return
    version = api.Registry(tracking_uri).version(name)
    yield version
    print_line((f"{version.name}@{version.version}", "bold"), f"  pushed {version.created:%Y-%m-%d %H:%M} UTC")
    facts = {"aliases": ", ".join(version.aliases) or "–", "content": version.content or "no bundle"}
    facts |= {"source": version.as_dict()["source"], "run": version.run or "–"}
    facts |= {key.removeprefix("lensmith."): value for key, value in sorted(version.tags.items())}
    print_table("", ("what", "value"), list(facts.items()))


def alias(
    name: Annotated[str, typer.Argument(metavar="NAME@VERSION", help="Version; with --remove, the model.")],
    alias: Annotated[str, typer.Argument(metavar="ALIAS", help="Such as champion.")],
    remove: Annotated[bool, typer.Option("--remove", help="Remove the alias.")] = False,
    tracking_uri: Uri = None,
) -> Output:
    """Point an alias to a version.

    For champion, the alias `previous` then names the champion before it.

    Example: `lensmith registry alias flowers@3 champion`
    """
    registry = api.Registry(tracking_uri)
    moved = registry.remove_alias(name, alias) if remove else registry.set_alias(name, alias)
    yield moved
    if moved.now is None:
        print_line((f"{moved.name}@{moved.alias}", "bold"), f"  is no longer there; it named version {moved.before}")
    else:
        before = f", before it {moved.before}" if moved.before not in (None, moved.now) else ""
        print_line((f"{moved.name}@{moved.alias}", "bold"), f"  names version {moved.now}{before}")


def pull(
    name: _Which,
    out: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="Folder to write, or a file that ends in .zip; by default the cache alone."),
    ] = None,
    tracking_uri: Uri = None,
) -> Output:
    """Fetch a bundle from the registry, and verify it."""
    pulled = api.Registry(tracking_uri).pull(name, out)
    yield pulled
    print_line((f"{pulled.version.name}@{pulled.version.version}", "bold"), f"  {pulled.path}")


def rollback(name: _Model, tracking_uri: Uri = None) -> Output:
    """Make the previous champion the champion again.

    A second rollback undoes the first.
    """
    moved = api.Registry(tracking_uri).rollback(name)
    yield moved
    print_line(
        (f"{moved.name}@{moved.alias}", "bold"), f"  names version {moved.now} again, in the place of {moved.before}"
    )


def _named(aliases: tuple[str, ...]) -> str:
    return f", named {', '.join(aliases)}" if aliases else ""


def _percent(accuracy: str | None) -> str:
    try:
        return f"{100 * float(accuracy):.2f} %" if accuracy else "–"
    except ValueError:  # a tag that was written by hand
        return str(accuracy)


command = group(VERBS["registry"], push=push, list=list_, show=show, alias=alias, pull=pull, rollback=rollback)
