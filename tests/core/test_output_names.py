"""Names of output folders."""

from pathlib import Path

import pytest

from lensmith import api
from lensmith.bundle.format import require_free as require_free_bundle
from lensmith.core.output_names import require_folder_name
from lensmith.errors import OutputError
from lensmith.feedback.dataset import export
from lensmith.training.run_dir.run import require_free as require_free_run
from lensmith.workflows.pipeline.folder import PipelineFolder


@pytest.mark.parametrize("ending", [".html", ".TSV", ".md", ".png", ".tar.gz", ".yaml", ".pt", ".zip", ".parquet"])
def test_no_verb_makes_a_folder_that_is_named_like_a_file(tmp_path: Path, ending: str) -> None:
    out = tmp_path / f"out{ending}"
    makers = (
        lambda: api.deploy(kind="nginx", out=out),
        lambda: api.bench(target="http://127.0.0.1:1", out=out),
        lambda: api.demo(out=out),
        lambda: api.fetch(name="digits", folder=out),
        lambda: export(tmp_path, out),
        lambda: export(tmp_path, tmp_path / "new", unlabelled=out),
        lambda: require_free_run(out),
        lambda: PipelineFolder(out).make(),
    )
    for make in makers:
        with pytest.raises(OutputError, match=r"named like a file. Name a folder, such as .*/out\."):
            make()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["flowers-v1.5", "2026.11.30", "efficientnet_b0.ra_in1k", "run", ".hidden", "a.b c"])
def test_a_dot_in_a_folders_name_is_no_ending_of_a_file(tmp_path: Path, name: str) -> None:
    require_folder_name(tmp_path / name, "it")
    require_free_bundle(tmp_path / name, replace=False)


def test_a_folder_that_is_there_keeps_its_name(tmp_path: Path) -> None:
    (tmp_path / "photos.zip").mkdir()
    require_folder_name(tmp_path / "photos.zip", "it")


@pytest.mark.parametrize("ending", [".ZIP", ".onnx", ".tar.gz", ".json", ".ckpt", ".safetensors", ".xml", ".html"])
def test_a_bundle_is_a_folder_or_a_zip(tmp_path: Path, ending: str) -> None:
    require_free_bundle(tmp_path / "model.zip", replace=False)
    with pytest.raises(OutputError, match=r"Name it model\.zip"):
        require_free_bundle(tmp_path / f"model{ending}", replace=False)
